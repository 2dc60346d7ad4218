"""Tiled equals whole: any size, any alignment, and with less memory than hoped."""

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn

from restore import tiling
from restore.devices import is_out_of_memory
from restore.errors import RestoreError
from restore.tiling import auto_tile, run_tiled, smallest_tile

ONE_STEP = 1 / 255


class StridedNet(nn.Module):
    """A small U-Net with strided and transposed convolutions: its result hangs on the alignment of a tile."""

    multiple = 8
    overlap_px = 46  # see test_the_overlap_of_the_strided_net_is_what_it_sees

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(4, 8, 3, padding=1)
        self.downs = nn.ModuleList(nn.Conv2d(8, 8, 4, stride=2, padding=1) for _ in range(3))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1) for _ in range(3))
        self.tail = nn.Conv2d(8, 3, 3, padding=1)
        for layer in [*self.downs, *self.ups]:
            layer.weight.data.mul_(3)  # so that what is deep and far away counts

    def forward(self, image, mask):
        height, width = image.shape[-2:]
        bottom, right = -height % 8, -width % 8
        x = F.pad(torch.cat([image, mask], 1), (0, right, 0, bottom), mode="replicate")
        x = self.head(x)
        skips = []
        for down in self.downs:
            skips.append(x)
            x = F.leaky_relu(down(x), 0.2)
        for up in self.ups:
            x = F.leaky_relu(up(x), 0.2) + skips.pop()
        return self.tail(x)[..., :height, :width]


def picture_of(height, width):
    """A real photograph, cut and repeated to a size, and a mask with a hole or two."""
    photo = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1)[None].float() / 255
    repeats = (1, 1, -(-height // 400), -(-width // 600))
    image = photo.repeat(repeats)[..., :height, :width]
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = 1
    return image, mask


@pytest.fixture(scope="module")
def net():
    return StridedNet().eval()


def whole(net, image, mask):
    with torch.no_grad():
        return net(image, mask)


def test_the_overlap_of_the_strided_net_is_what_it_sees(net):
    image = torch.zeros(1, 3, 8, 256, requires_grad=True)
    reach = 0
    for column in (128, 131, 132, 135):
        seen = torch.autograd.grad(net(image, image[:, :1] * 0)[0, 0, 4, column], image)[0][0].abs().sum((0, 1))
        at = seen.nonzero().flatten()
        reach = max(reach, column - at.min().item(), at.max().item() - column)
    assert reach <= net.overlap_px


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 5), (131, 257), (400, 600), (321, 640)])
@pytest.mark.parametrize("tile_px", [1, 250])
def test_tiled_equals_whole(net, size, tile_px):
    image, mask = picture_of(*size)
    calls = []

    def counting(image, mask):
        calls.append(image.shape[-2:])
        return net(image, mask)

    tiled = run_tiled(counting, (image, mask), tile_px=tile_px, overlap_px=net.overlap_px, multiple=net.multiple)
    expected = whole(net, image, mask)
    assert expected.shape == tiled.shape == (1, 3, *size)
    assert (tiled - expected).abs().max() <= ONE_STEP / 10
    largest = max(tile_px, smallest_tile(net.overlap_px, net.multiple))
    assert max(max(call) for call in calls) <= largest
    assert (len(calls) > 1) == (max(size) > largest)


def test_tiles_off_the_grid_of_the_strides_would_not_equal(net):
    image, mask = picture_of(321, 640)
    off = run_tiled(net, (image, mask), tile_px=233, overlap_px=net.overlap_px, multiple=1)
    assert (off - whole(net, image, mask)).abs().max() > ONE_STEP


def test_too_little_overlap_would_not_equal(net):
    image, mask = picture_of(321, 640)
    short = run_tiled(net, (image, mask), tile_px=233, overlap_px=2, multiple=net.multiple)
    assert (short - whole(net, image, mask)).abs().max() > ONE_STEP


def test_a_long_line_of_pixels(net):
    image, mask = picture_of(1, 2000)
    tiled = run_tiled(net, (image, mask), tile_px=256, overlap_px=net.overlap_px, multiple=net.multiple)
    assert (tiled - whole(net, image, mask)).abs().max() <= ONE_STEP / 10


@pytest.mark.parametrize("scale", [2, 4])
def test_a_larger_picture_comes_out_where_the_callable_enlarges(scale):
    def enlarge(x):
        return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)

    image, _ = picture_of(123, 211)
    tiled = run_tiled(enlarge, image, tile_px=64, overlap_px=4, scale=scale)
    assert tiled.shape == (1, 3, 123 * scale, 211 * scale)
    assert (tiled - enlarge(image)).abs().max() <= ONE_STEP / 10


def test_a_single_picture_and_absent_inputs_pass():
    image = torch.rand(3, 50, 90)
    given = []

    def f(image, mask):
        given.append(mask)
        return image * 2

    assert torch.allclose(run_tiled(f, (image, None), tile_px=40, overlap_px=2), image * 2)
    assert set(given) == {None}


def test_tiles_that_disagree_fade_into_each_other():
    brightness = iter(torch.linspace(0, 1, 100))
    out = run_tiled(
        lambda x: torch.full_like(x, next(brightness)), torch.zeros(1, 1, 1, 300), tile_px=100, overlap_px=8
    )
    steps = out.diff().abs()
    assert out.max() > 0.03
    assert steps.max() < 0.2 * 0.0102  # of a difference of 1/99 between neighbours, spread over 16 pixels


def test_values_beyond_the_overlap_do_not_matter_even_if_they_are_not_numbers():
    def spoilt(x):
        out = x.clone()
        out[..., :4], out[..., -4:] = torch.nan, torch.inf
        return out

    image = torch.rand(1, 1, 1, 500)
    out = run_tiled(spoilt, image, tile_px=100, overlap_px=4)
    assert torch.allclose(out[..., 4:-4], image[..., 4:-4])


def test_half_precision_is_put_together_in_float32():
    image = torch.rand(1, 3, 64, 200)
    out = run_tiled(lambda x: x.bfloat16(), image, tile_px=64, overlap_px=4)
    assert out.dtype == torch.float32
    assert (out - image).abs().max() <= 1 / 256


# Memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 400000000 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB)"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_tile_and_is_told_once(net, error):
    image, mask = picture_of(400, 600)
    told = []

    def greedy(image, mask):
        if image.shape[-1] * image.shape[-2] > 100_000:
            raise error
        return net(image, mask)

    out = run_tiled(
        greedy,
        (image, mask),
        tile_px=0,
        overlap_px=net.overlap_px,
        multiple=net.multiple,
        on_smaller_tile=told.append,
    )
    assert told == [300]
    assert (out - whole(net, image, mask)).abs().max() <= ONE_STEP / 10


def test_memory_that_runs_out_half_way_leaves_no_trace():
    calls = iter(range(1000))

    def failing_once(x):
        if next(calls) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return x

    image = torch.rand(1, 3, 300, 300)
    assert torch.allclose(run_tiled(failing_once, image, tile_px=150, overlap_px=8), image)


def test_memory_that_never_suffices_is_one_clear_error():
    def hopeless(x):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(RestoreError, match="out of memory even with 64 px tiles") as caught:
        run_tiled(hopeless, torch.zeros(1, 3, 200, 200), tile_px=128, overlap_px=8)
    assert caught.value.exit_code == 1


def test_other_errors_are_not_taken_for_memory():
    def broken(x):
        raise RuntimeError("expected 4 channels")

    assert not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError, match="expected 4 channels"):
        run_tiled(broken, torch.zeros(1, 3, 64, 64), tile_px=32, overlap_px=2)


def test_a_real_allocation_that_cannot_be_had_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)


def test_the_automatic_tile_is_whole_for_small_pictures_and_bounded_by_memory(monkeypatch):
    monkeypatch.setattr(tiling, "free_memory", lambda device: 2**34)
    assert auto_tile(600, 800, device="cpu", overlap_px=32) == 0
    assert auto_tile(30_000, 30_000, device="cpu", overlap_px=32) == 1024
    hungry = 2**32 // 300**2
    assert 280 <= auto_tile(30_000, 30_000, device="cpu", overlap_px=32, bytes_per_pixel=hungry) <= 320
    assert auto_tile(9000, 9000, device="cpu", overlap_px=32, bytes_per_pixel=2**60) == smallest_tile(32)
