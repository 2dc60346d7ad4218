"""Build a page that repairs photographs in the browser, with `photo` and `inpaint` in ONNX Runtime Web.

    python examples/browser/build.py [FOLDER]        # default: build/browser

The script needs the extra `onnx`, and `npm`, which downloads the runtime from the package registry that it is set to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PAGE = Path(__file__).parent / "page"
RUNTIME = "onnxruntime-web@1.30.0"
#: SHA-512 of the package, as npm states it. Other bytes are not used.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
#: The files of the package that the page loads.
RUNTIME_FILES = ("dist/ort.wasm.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm")
MODELS = ("photo", "inpaint")


def build(folder: Path) -> None:
    """Write all files of the page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in PAGE.iterdir():
        shutil.copy(file, folder)
    add_runtime(folder / "ort")
    add_models(folder)


def add_runtime(folder: Path) -> None:
    """Take the runtime's files out of its npm package, after checking the package."""
    folder.mkdir(exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is needed to get onnxruntime-web")
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([npm, "pack", "--silent", RUNTIME], cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        package = next(Path(temporary).glob("*.tgz"))
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != INTEGRITY:
            sys.exit(f"{RUNTIME} is not the package that this script knows: sha512-{digest}")
        with tarfile.open(package) as archive:
            for name in RUNTIME_FILES:
                content = archive.extractfile(f"package/{name}")
                assert content is not None
                (folder / Path(name).name).write_bytes(content.read())


def add_models(folder: Path) -> None:
    """Write the networks as ONNX graphs, and the facts that the page needs about them as `models.json`."""
    from restore.checkpoints import load_generator, shipped_weights
    from restore.engines.onnx_graph import facts, onnx_bytes

    known = {}
    for name in MODELS:
        path = shipped_weights()[name]
        network, description = load_generator(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        graph = onnx_bytes(network, 3, facts(description, sha256=sha256, license="Apache-2.0"))
        (folder / f"{name}.onnx").write_bytes(graph)
        known[name] = {
            "file": f"{name}.onnx",
            "bytes": len(graph),
            "multiple": description.multiple,
            "overlap": description.overlap_px,
            "mask": description.needs_mask,
        }
    (folder / "models.json").write_text(json.dumps(known, indent=1))


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("build/browser")
    build(place)
    print(f"{place}: open it with `python {Path(__file__).parent / 'serve.py'} {place}`")
