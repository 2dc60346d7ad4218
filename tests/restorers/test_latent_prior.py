"""Holes filled by a generator of images: the search, its losses, the blend, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from restore.errors import RestoreError
from restore.images import read_image, write_png
from restore.models.dcgan import DCDiscriminator, DCGenerator, DenseGenerator
from restore.restorers import latent_prior
from restore.restorers.latent_prior import PRIOR_WEIGHT, Judge, LatentPrior, context_weights
from restore.restorers.registry import open_restorer
from restore.training.config import load_train_config
from restore.training.loop import train
from tests.fix.conftest import fix_with

SIDE = 28
CPU = torch.device("cpu")


def generator(channels: int = 3, classes: int = 0) -> DCGenerator:
    """A generator with random weights, whose images have contrast."""
    torch.manual_seed(3)
    model = DCGenerator(SIDE, channels, latents=6, classes=classes, ngf=4)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.25)
    return model.eval()


def prior(channels: int = 3, classes: int = 0, steps: int = 60, seed: int = 0) -> LatentPrior:
    return LatentPrior("faces", generator(channels, classes), CPU, seed=seed, steps=steps)


@pytest.fixture(scope="module")
def drawn() -> torch.Tensor:
    """An image that the generator can draw, 1×3×S×S."""
    with torch.no_grad():
        return generator()(torch.randn(1, 6, generator=torch.Generator().manual_seed(5)).clamp(-2, 2))


@pytest.fixture(scope="module")
def hole() -> torch.Tensor:
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 8:20, 9:21] = 1
    return mask


def context_loss(restorer: LatentPrior, image: torch.Tensor, hole: torch.Tensor) -> float:
    found = restorer.search(image, hole)
    return float((context_weights(hole) * (found - image[:, : found.shape[1]])).abs().sum())


# The losses


def test_weights_are_those_of_the_paper() -> None:
    """Eq. 2, pixel by pixel."""
    rng = np.random.default_rng(0)
    hole = rng.random((12, 15)) < 0.2
    expected = np.zeros(hole.shape)
    for y, x in zip(*np.nonzero(~hole)):
        window = hole[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
        expected[y, x] = window.mean()
    found = context_weights(torch.from_numpy(hole[None, None].astype(np.float32)))
    assert np.allclose(found[0, 0].numpy(), expected, atol=1e-6)


def test_prior_loss_of_each_adversary() -> None:
    torch.manual_seed(0)
    network = DCDiscriminator(3, SIDE, ndf=2).eval()
    image = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    logits = network(image)[:, 0]
    losses = {kind: Judge(network, kind).loss(image, None) for kind in ("vanilla", "lsgan", "hinge", "wgan-gp")}
    assert torch.allclose(losses["vanilla"], torch.log(1 - logits.sigmoid()), atol=1e-6)  # eq. 4
    assert torch.allclose(losses["lsgan"], (logits - 1) ** 2)
    assert torch.equal(losses["hinge"], -logits)
    assert torch.equal(losses["wgan-gp"], -logits)


def test_loss_is_the_sum_of_both(drawn: torch.Tensor, hole: torch.Tensor) -> None:
    torch.manual_seed(1)
    judge = Judge(DCDiscriminator(3, SIDE, ndf=2), "vanilla")
    restorer = LatentPrior("faces", generator(), CPU, judge)
    noise = torch.randn(1, 6)
    weights = context_weights(hole)
    found = restorer._losses(noise, None, drawn, weights)
    image = restorer.model(noise)
    expected = (weights * 2 * (image - drawn)).abs().sum() + PRIOR_WEIGHT * judge.loss(image * 2 - 1, None)
    assert torch.allclose(found, expected, rtol=1e-5)


# The search


def test_search_lowers_the_context_loss(drawn: torch.Tensor, hole: torch.Tensor) -> None:
    at_start, later = (context_loss(prior(steps=steps), drawn, hole) for steps in (0, 80))
    assert later < at_start / 2


def test_hole_is_filled_with_what_the_generator_draws(drawn: torch.Tensor, hole: torch.Tensor) -> None:
    """Better than by the smooth fill that blending starts from."""
    damaged = torch.where(hole > 0, 0.0, drawn)
    filled = prior(steps=150)(damaged, hole)
    smooth = latent_prior.harmonic_fill(damaged, hole)
    errors = [float((x - drawn)[hole.expand_as(x) > 0].square().mean()) for x in (filled, smooth)]
    assert errors[0] < errors[1] / 4
    assert torch.equal(filled[hole.expand_as(filled) == 0], drawn[hole.expand_as(drawn) == 0])


def test_seeds_give_other_fills_and_the_same_again(drawn: torch.Tensor, hole: torch.Tensor) -> None:
    first, again, other = (prior(steps=2, seed=seed)(drawn, hole) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(prior(steps=2).with_seed(1)(drawn, hole), other)
    assert not torch.equal(first, other)
    assert torch.equal(first[..., :8, :], other[..., :8, :])


def test_values_under_the_mask_do_not_matter(drawn: torch.Tensor, hole: torch.Tensor) -> None:
    a, b = (prior(steps=2)(torch.where(hole > 0, value, drawn), hole) for value in (0.0, torch.nan))
    assert torch.equal(a, b)


def test_images_of_a_batch_are_filled_alone(drawn: torch.Tensor, hole: torch.Tensor) -> None:
    restorer = prior(steps=2)
    images, holes = torch.cat([drawn, 1 - drawn]), torch.cat([hole, hole.flip(-1)])
    together = restorer(images, holes)
    alone = [restorer(image, mask) for image, mask in zip(images.split(1), holes.split(1))]
    assert torch.equal(together, torch.cat(alone))


def test_class_is_found(hole: torch.Tensor) -> None:
    model = generator(1, classes=3)
    with torch.no_grad():
        image = model(torch.zeros(1, 6), torch.tensor([2])).expand(-1, 3, -1, -1)
    restorer = LatentPrior("digits", model, CPU, steps=60)
    filled = restorer(image, hole)
    assert torch.equal(filled[:, 0], filled[:, 2])
    assert float((filled - image).abs().max()) < 0.1


def test_dense_generator_and_a_hole_everywhere() -> None:
    torch.manual_seed(0)
    restorer = LatentPrior("digits", DenseGenerator(8, 1, 4, width=4), CPU, steps=1)
    image, hole = torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8)
    assert torch.equal(restorer(image, hole), restorer.search(image, hole).expand_as(image))


def test_blend_solves_poissons_equation(drawn: torch.Tensor, hole: torch.Tensor) -> None:
    """Against the exact solution: the Laplacian in the hole is that of what was drawn (eq. 5)."""
    known = (drawn * 0.5 + 0.2).clamp(0, 1)
    restorer = prior(steps=0)
    source = restorer.search(known, hole)[0, 0].double().numpy()
    filled = restorer(known, hole)[0, 0].double().numpy()
    where = list(zip(*np.nonzero(hole[0, 0].numpy())))
    index = {pixel: number for number, pixel in enumerate(where)}
    matrix, right = np.zeros((len(where), len(where))), np.zeros(len(where))
    for (y, x), number in index.items():
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            matrix[number, number] += 1
            right[number] += source[y, x] - source[near]
            if near in index:
                matrix[number, index[near]] -= 1
            else:
                right[number] += float(known[0, 0][near])
    exact = np.linalg.solve(matrix, right).clip(0, 1)
    found = np.array([filled[pixel] for pixel in where])
    assert np.abs(found - exact).mean() < 0.02


# What it refuses


def test_other_sizes_and_colors_are_refused(hole: torch.Tensor) -> None:
    wide = torch.rand(1, 3, SIDE, SIDE + 2)
    with pytest.raises(RestoreError, match=r"in images of 28×28 px alone, not of 30×28") as error:
        prior()(wide, torch.ones(1, 1, SIDE, SIDE + 2))
    assert "resize it to 28×28" in str(error.value.hint)
    with pytest.raises(RestoreError, match="draws gray images, and this one has color"):
        prior(channels=1)(torch.rand(1, 3, SIDE, SIDE), hole)
    assert torch.equal(prior()(wide, torch.zeros(1, 1, SIDE, SIDE + 2)), wide)  # nothing to fill


# A run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(8):
        write_png(folder / "images" / f"{number}.png", rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    overrides = [
        f"data.folders=[{folder / 'images'}]", f"data.patch={SIDE}", f"data.resize={SIDE}", "data.batch=4",
        "data.validation_percent=40", "model.args={ngf: 2, latents: 4}", "total_steps=1", "validate_every=1",
        "discriminator.args={ndf: 2, norm: none, spectral_norm: true}", "loss.adversarial=hinge", "device=cpu",
        "threads=1", f"out={folder / 'faces'}",
    ]  # fmt: skip
    assert train(load_train_config("dcgan", overrides)).finished
    return folder / "faces"


def test_a_run_opens_with_its_discriminator(run: Path, tmp_path: Path) -> None:
    restorer = open_restorer(str(run), device="cpu")
    assert isinstance(restorer, LatentPrior)
    assert restorer.judge is not None
    assert restorer.judge.adversarial == "hinge"
    assert restorer.purpose == "fills holes in images of 28×28 px, of the kind that it draws"
    alone, lines = tmp_path / "alone.safetensors", []
    alone.write_bytes((run / "best.safetensors").read_bytes())
    without = open_restorer(str(alone), device="cpu", on_event=lines.append)
    assert isinstance(without, LatentPrior)
    assert without.judge is None
    assert "no discriminator" in lines[0]


def test_fix_fills_in_several_ways(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for folder in ("in", "masks"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[10:18, 10:18] = 255
    write_png(tmp_path / "in" / "a.png", pixels)
    write_png(tmp_path / "in" / "large.png", np.zeros((40, 50, 3), np.uint8))
    write_png(tmp_path / "masks" / "a.png", mask)
    write_png(tmp_path / "masks" / "large.png", np.full((40, 50), 255, np.uint8))
    summary = fix_with(tmp_path / "in", tmp_path / "out", prior(steps=2), masks=tmp_path / "masks", fills=2)
    assert (summary.done, len(summary.failed)) == (1, 1)
    assert "images of 28×28 px alone, not of 50×40" in summary.failed[0].reason
    fills = [read_image(tmp_path / "out" / name).pixels for name in ("a.png", "a.2.png")]
    for fill in fills:
        assert np.array_equal(fill[mask == 0], pixels[mask == 0])
        assert not np.array_equal(fill[mask > 0], pixels[mask > 0])
    assert not np.array_equal(*fills)
