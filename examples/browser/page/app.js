// The page: open, paint, repair by the worker, compare, save. Nothing of the photograph is sent anywhere.

const MAX_PIXELS = 24e6;

const at = (id) => document.getElementById(id);
const image = at("image").getContext("2d", { willReadFrequently: true });
const mask = at("mask").getContext("2d", { willReadFrequently: true });
const worker = new Worker("worker.js", { type: "module" });

let name = "photograph";
let before = null; // the pixels that were opened
let after = null; // with all repairs
let repairs = []; // earlier states of `after`, and of the mask
let busy = false;

function say(text) { at("status").textContent = text; }

function update() {
  for (const id of ["clean", "fill", "compare", "save"]) at(id).disabled = !after || busy;
  at("undo").disabled = !repairs.length || busy;
  at("file").disabled = busy;
}

async function open(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    say("This browser cannot read that file as an image.");
    return;
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) {
    say(`${width} × ${height} pixels are too many for this page; the command line has no such limit.`);
    return;
  }
  for (const canvas of [at("image"), at("mask")]) Object.assign(canvas, { width, height });
  image.drawImage(bitmap, 0, 0);
  bitmap.close();
  before = image.getImageData(0, 0, width, height);
  after = before;
  repairs = [];
  name = file.name.replace(/\.[^.]*$/, "") || "photograph";
  say(`${width} × ${height} pixels.`);
  show(false);
}

function show(old) {
  at("compare").setAttribute("aria-pressed", String(old));
  at("mask").classList.toggle("hidden", old);
  image.putImageData(old ? before : after, 0, 0);
  update();
}

function painted() {
  const { width, height } = after;
  const alpha = mask.getImageData(0, 0, width, height).data;
  const holes = new Uint8Array(width * height);
  for (let pixel = 0; pixel < holes.length; pixel++) holes[pixel] = alpha[4 * pixel + 3] > 127 ? 1 : 0;
  return holes;
}

function repair(model) {
  const { width, height } = after;
  const holes = model === "inpaint" ? painted() : null;
  if (holes && !holes.includes(1)) {
    say("Nothing is painted. Paint over the damage first.");
    return;
  }
  busy = true;
  update();
  const start = performance.now();
  worker.onmessage = ({ data }) => {
    if (data.progress) {
      say(`${data.progress}…`);
      return;
    }
    busy = false;
    if (data.error) {
      say(`It failed: ${data.error}`);
    } else {
      remember();
      after = new ImageData(data.pixels, width, height);
      if (holes) mask.clearRect(0, 0, width, height);
      say(`Done in ${((performance.now() - start) / 1000).toFixed(1)} s.`);
    }
    show(false);
  };
  worker.onerror = (event) => {
    busy = false;
    say(`It failed: ${event.message || "the worker cannot be loaded"}`);
    update();
  };
  worker.postMessage({ model, pixels: after.data, mask: holes, height, width });
}

function remember() {
  const { width, height } = after;
  repairs.push({ after, mask: mask.getImageData(0, 0, width, height) });
  if (repairs.length > Math.min(5, Math.max(1, 60e6 / (width * height)))) repairs.shift();
}

function point(event) {
  const box = at("mask").getBoundingClientRect();
  const scale = at("mask").width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale, Number(at("size").value) * scale];
}

let stroke = null;
function paint(event) {
  const [x, y, size] = point(event);
  mask.globalCompositeOperation = at("erase").checked ? "destination-out" : "source-over";
  mask.strokeStyle = "#e11";
  mask.lineWidth = size;
  mask.lineCap = mask.lineJoin = "round";
  mask.beginPath();
  mask.moveTo(...(stroke ?? [x, y]));
  mask.lineTo(x + (stroke ? 0 : 0.01), y);
  mask.stroke();
  stroke = [x, y];
}

at("mask").addEventListener("pointerdown", (event) => {
  if (!after || busy || event.button !== 0) return;
  at("mask").setPointerCapture(event.pointerId);
  stroke = null;
  paint(event);
});
at("mask").addEventListener("pointermove", (event) => { if (stroke) paint(event); });
for (const end of ["pointerup", "pointercancel"]) at("mask").addEventListener(end, () => { stroke = null; });

at("file").addEventListener("change", () => { if (at("file").files[0]) open(at("file").files[0]); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0] && !busy) open(event.dataTransfer.files[0]);
});
at("tools").addEventListener("submit", (event) => event.preventDefault());
at("clean").addEventListener("click", () => repair("photo"));
at("fill").addEventListener("click", () => repair("inpaint"));
at("compare").addEventListener("click", () => show(at("compare").getAttribute("aria-pressed") === "false"));
at("undo").addEventListener("click", () => {
  const earlier = repairs.pop();
  after = earlier.after;
  mask.putImageData(earlier.mask, 0, 0);
  show(false);
});
at("save").addEventListener("click", () => {
  show(false);
  at("image").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}-repaired.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
});
update();
