"""Attention as techniques get it, in every family: a bias, turned queries and keys, some of the tokens."""

from dataclasses import dataclass, replace

import pytest
import torch

from backbones.test_families import CASES, TwoTexts, request
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.run import Run
from kinema.core.technique import Technique

ROWS = [  # every family, and what is special in its attention
    "wan 2.1 t2v",
    "wan 2.1 vace",
    "skyreels v2, a time per frame",
    "cogvideox 2b",
    "cogvideox 5b",
    "cogvideox 5b i2v, no guidance",
    "ltx 0.9.0 t2v",
    "ltx 2.0 t2v",
    "hunyuan t2v",
    "hunyuan i2v, tokens replaced",
    "hunyuan 1.5 t2v",
    "mochi",
    "animatediff",
    "svd",
]
CLOSE = dict(atol=2e-5, rtol=1e-4)


@dataclass(frozen=True, kw_only=True)
class Does(Technique):
    """Does `does(site, q, k, v, positions, next)` at every attention."""

    name = "does"
    does: object

    def wants(self, site):
        return True

    def attend(self, step, site, q, k, v, positions, next):
        return self.does(site, q, k, v, positions, next)


@pytest.fixture(scope="session")
def velocity(folders, pictures):
    """The velocity of one call of a family's network in which `does`, one inside the other, act at every site."""
    loaded = {}

    def called(name, *does, texts=None):
        backbone = loaded.setdefault(name, None) or load(folders(name), device="cpu", dtype="float32")
        loaded[name] = backbone
        parts = [Does(does=d) for d in does] + ([] if texts is None else [texts])
        with torch.no_grad(), Run.open(backbone, request(CASES[name], pictures), parts) as run:
            x = torch.randn(run.conditions.shape, generator=torch.Generator().manual_seed(1))
            return run.velocity(run.schedule[1], x.to(run.solver.begin(run.noise()).dtype), "cond")

    return called


def kept(positions, which):
    """Attention's tokens in another order, and where they stand."""
    return None if positions is None else positions.part(*which)


@pytest.mark.parametrize("name", ROWS)
def test_a_bias_comes_on_top_of_the_logits(name, velocity):
    plain = velocity(name)

    def zero(site, q, k, v, positions, next):
        return next(q, k, v, positions, torch.zeros(k.shape[2]))

    torch.testing.assert_close(velocity(name, zero), plain, **CLOSE)

    def one_key(site, q, k, v, positions, next):
        bias = torch.full((q.shape[2], k.shape[2]), -torch.inf)
        bias[:, 0] = 0.0
        found = next(q, k, v, positions, bias)
        real = found.abs().amax(dim=(1, 3), keepdim=True) > 0  # tokens that are padding see nothing in some families
        torch.testing.assert_close(found, torch.where(real, v[:, :, :1], 0).expand_as(found), **CLOSE)
        return next(q, k, v, positions)

    assert torch.equal(velocity(name, one_key), plain)


@pytest.mark.parametrize("name", ROWS)
def test_biases_of_nested_techniques_add_up(name, velocity):
    def gives(scale, seed=0):
        def does(site, q, k, v, positions, next):
            generator = torch.Generator().manual_seed(seed)
            bias = scale * torch.randn(len(q), 1, q.shape[2], k.shape[2], generator=generator)
            return next(q, k, v, positions, bias)

        return does

    together = velocity(name, gives(3.0))
    torch.testing.assert_close(velocity(name, gives(1.0), gives(2.0)), together, **CLOSE)
    assert (together - velocity(name)).abs().max() > 1e-4


@pytest.mark.parametrize("name", ROWS)
def test_turned_queries_and_keys_give_the_models_logits(name, velocity):
    def computes(site, q, k, v, positions, next):
        few = torch.arange(min(3, k.shape[2]))  # keys that no model masks
        if site.kind == "joint":
            few = torch.cat([positions.placed_keys[:2], positions.text_keys([0])])
        turned_q, turned_k = next.turn(q, k, positions)
        logits = turned_q @ turned_k[:, :, few].mT / q.shape[-1] ** 0.5
        bias = torch.full((k.shape[2],), -torch.inf).index_fill(0, few, 0.0)
        found = next(q, k, v, positions, bias)
        real = found.abs().amax(dim=(1, 3), keepdim=True) > 0  # padding sees nothing in some families
        assert real.any(dim=2).all()
        mine = logits.softmax(-1) @ v[:, :, few]
        torch.testing.assert_close(found, torch.where(real, mine, 0), **CLOSE)
        return next(q, k, v, positions)

    velocity(name, computes)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("texts", [None, TwoTexts(prompts=("a cube jumps right", "the ring"))])
def test_some_of_the_tokens_in_any_order(name, texts, velocity, folders):
    if texts is not None and "context" not in load(folders(name), device="cpu", dtype="float32").hooks:
        pytest.skip("frames of this family cannot read texts of their own")
    generator = torch.Generator().manual_seed(0)

    def shuffled(site, q, k, v, positions, next):
        """All of them in another order, and back."""
        if positions is None:
            return next(q, k, v, positions)
        of_q, of_k = (torch.randperm(u.shape[2], generator=generator) for u in (q, k))
        found = next(q[:, :, of_q], k[:, :, of_k], v[:, :, of_k], positions.part(of_q, of_k))
        return torch.empty_like(found).index_copy(2, of_q, found)

    def halves(site, q, k, v, positions, next):
        """The queries in two calls, of parts of parts."""
        if positions is None:
            first = torch.arange(q.shape[2]) < q.shape[2] // 2
            return torch.cat([next(q[:, :, part], k, v, None) for part in (first, ~first)], dim=2)
        whole = torch.arange(q.shape[2]).flip(0)
        turned, q = positions.part(whole), q[:, :, whole]
        found = torch.cat([next(q[:, :, i::2], k, v, turned.part(whole.flip(0)[i::2])) for i in (0, 1)], dim=2)
        return torch.empty_like(found).index_copy(2, torch.cat([whole[0::2], whole[1::2]]), found)

    def biased(site, q, k, v, positions, next):
        generator = torch.Generator().manual_seed(3)
        return next(q, k, v, positions, torch.randn(q.shape[2], k.shape[2], generator=generator))

    plain = velocity(name, texts=texts)
    torch.testing.assert_close(velocity(name, shuffled, texts=texts), plain, **CLOSE)
    torch.testing.assert_close(velocity(name, halves, texts=texts), plain, **CLOSE)
    # A bias from outside follows the tokens that are left.
    outside = velocity(name, biased, texts=texts)
    assert (outside - plain).abs().max() > 1e-4
    torch.testing.assert_close(velocity(name, biased, shuffled, texts=texts), outside, **CLOSE)


@pytest.mark.parametrize("name", ROWS)
def test_keys_left_out_are_keys_of_no_weight(name, velocity):
    def mask(k):
        return torch.arange(k.shape[2]) % 3 != 1

    def fewer(site, q, k, v, positions, next):
        left = mask(k)
        if positions is None:
            return next(q, k, v, None, torch.where(left, 0.0, -torch.inf))
        return next(q, k[:, :, left], v[:, :, left], positions.part(k=left))

    def silent(site, q, k, v, positions, next):
        return next(q, k, v, positions, torch.where(mask(k), 0.0, -torch.inf))

    without = velocity(name, silent)
    torch.testing.assert_close(velocity(name, fewer), without, **CLOSE)
    assert (without - velocity(name)).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["wan 2.1 t2v", "cogvideox 5b", "hunyuan 1.5 t2v", "ltx 0.9.0 t2v"])
def test_gradients_go_through_turned_queries_and_a_bias(name, velocity):
    def does(site, q, k, v, positions, next):
        with torch.enable_grad():
            q, bias = q.clone().requires_grad_(), torch.zeros(q.shape[2], k.shape[2], requires_grad=True)
            turned, _ = next.turn(q, k, positions)
            found = torch.autograd.grad(turned.square().sum(), q)[0]
            torch.testing.assert_close(found, 2 * q, **CLOSE)  # a rotation keeps lengths
            assert torch.autograd.grad(next(q, k, v, positions, bias).sum(), bias)[0].abs().max() > 0
        return next(q.detach(), k, v, positions)

    velocity(name, does)


@pytest.mark.parametrize(
    "does, says",
    [
        (
            lambda q, k, v, p, next: next(q, k, v, p, torch.zeros(3, 5)),
            r"bias of an attention is .* \(3, 5\); use floats",
        ),
        (lambda q, k, v, p, next: next(q, k, v, p, torch.ones(1, dtype=torch.bool)), "is torch.bool of"),
        (lambda q, k, v, p, next: next(q[:, :, :3], k, v, p), "3 queries are passed with the positions of"),
        (
            lambda q, k, v, p, next: next(q, k, v, p.part(q=torch.arange(2))),
            "queries are passed with the positions of 2",
        ),
    ],
)
@pytest.mark.parametrize("name", ["wan 2.1 t2v", "mochi"])
def test_refuses_what_does_not_belong_together(name, does, says, velocity):
    with pytest.raises(KinemaError, match=says):
        velocity(name, lambda site, *given: does(*given))


def test_an_outer_bias_needs_the_tokens_it_knows(velocity):
    def biased(site, q, k, v, positions, next):
        return next(q, k, v, positions, torch.zeros(q.shape[2], k.shape[2]))

    def half(site, q, k, v, positions, next):
        found = next(q[:, :, ::2], k, v, None)
        return found.repeat_interleave(2, dim=2)[:, :, : q.shape[2]]

    with pytest.raises(KinemaError, match="queries are passed where .* were, and something is known of each"):
        velocity("animatediff", biased, half)


def test_the_keys_of_words_follow_a_part(velocity):
    seen = []

    def does(site, q, k, v, positions, next):
        part = positions.part(k=torch.arange(k.shape[2]).flip(0))
        for tokens in ([0], [1, 3]):
            assert torch.equal(
                k.flip(2)[:, :, part.text_keys(tokens)].sum(2), k[:, :, positions.text_keys(tokens)].sum(2)
            )
        seen.append((site.kind, positions.text_keys([2]).tolist(), k.shape[2] - len(positions.k)))
        return next(q, k, v, replace(positions, q=positions.q))

    for name in ("cogvideox 5b", "hunyuan t2v", "ltx 0.9.0 t2v"):
        velocity(name, does)
    assert ("joint", [2], 226) in seen and ("cross", [2], 128) in seen


@pytest.mark.parametrize("name", ["wan 2.1 t2v", "cogvideox 5b", "hunyuan t2v", "hunyuan 1.5 t2v", "mochi"])
def test_keys_that_are_lent_are_seen_by_all_that_read_texts_of_their_own(name, velocity):
    """Keys of the video once more change no attention if there is nothing else; they do beside text."""

    def biased(site, q, k, v, positions, next):
        return next(q, k, v, positions, torch.zeros(q.shape[2], k.shape[2]))

    def lent(site, q, k, v, positions, next):
        if site.kind == "cross":
            return next(q, k, v, positions)
        behind = positions.first + len(positions.k)
        mine = slice(positions.first, behind)
        k, v = (torch.cat([u[:, :, :behind], u[:, :, mine], u[:, :, behind:]], dim=2) for u in (k, v))
        return next(q, k, v, positions.with_lent(positions.k))

    texts = TwoTexts()
    plain, more = velocity(name, texts=texts), velocity(name, lent, texts=texts)
    torch.testing.assert_close(velocity(name, biased, lent, texts=texts), more, **CLOSE)
    same = torch.allclose(plain, more, **CLOSE)
    assert same if name.startswith("wan") else not same
