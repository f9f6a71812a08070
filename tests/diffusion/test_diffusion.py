"""Schedule, loss and samplers, with the exact denoiser of a Gaussian as oracle."""

import pytest
import torch

from fewview.diffusion.loss import denoising_loss, dropped, self_conditioned, stratified_times
from fewview.diffusion.noise import NoiseConfig, Schedule, own_estimate, per_volume
from fewview.diffusion.sampler import SamplerConfig, ddim, dpmpp_2m, sample

MEAN, STD = 0.3, 0.5


def exact_gaussian(schedule: Schedule):
    """The best possible prediction for data of mean MEAN and standard deviation STD."""

    def predict(noisy, time):
        alpha, sigma = (per_volume(value, noisy) for value in schedule.alpha_sigma(time))
        variance = (alpha * STD) ** 2 + sigma**2
        clean = MEAN + alpha * STD**2 / variance * (noisy - alpha * MEAN)
        noise = (noisy - alpha * clean) / sigma.clamp(min=1e-6)
        return noise if schedule.prediction == "epsilon" else alpha * noise - sigma * clean

    return predict


def noise(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize(("sampler", "nfe"), [(ddim, 100), (dpmpp_2m, 20), (dpmpp_2m, 10)])
def test_the_exact_denoiser_of_a_gaussian_samples_that_gaussian(sampler, nfe, prediction):
    schedule = Schedule(NoiseConfig(prediction=prediction))
    drawn = sampler(exact_gaussian(schedule), schedule, noise(), nfe=nfe)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert drawn.std().item() == pytest.approx(STD, rel=0.06)


def test_the_second_order_sampler_is_nearer_than_the_first_order_one():
    schedule = Schedule(NoiseConfig())
    predict = exact_gaussian(schedule)
    spreads = {run: run(predict, schedule, noise(), nfe=10).std() for run in (ddim, dpmpp_2m)}
    assert abs(spreads[dpmpp_2m] - STD) < abs(spreads[ddim] - STD)


@pytest.mark.parametrize("kind", ["ddim", "dpmpp"])
def test_nfe_counts_the_calls_of_the_denoiser(kind):
    schedule, calls = Schedule(NoiseConfig()), []

    def predict(noisy, time):
        calls.append(time[0].item())
        return torch.zeros_like(noisy)

    sample(SamplerConfig(kind=kind), predict, schedule, noise(1), nfe=7)
    assert len(calls) == 7
    assert calls[0] == 1.0


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
def test_a_sampler_ends_on_the_last_clean_estimate(sampler):
    schedule, estimates = Schedule(NoiseConfig(prediction="epsilon")), []

    def predict(noisy, time):
        output = 0.5 * noisy
        estimates.append(schedule.split(output, noisy, time).denoised)
        return output

    drawn = sampler(predict, schedule, noise(1), nfe=3)
    torch.testing.assert_close(drawn, estimates[-1])


def test_schedule_agrees_with_the_chain_of_cls_dm():
    schedule = Schedule(NoiseConfig())
    alpha, sigma = schedule.alpha_sigma(torch.tensor([0.001, 0.251, 0.501, 1.0]))
    expected = torch.tensor([0.9985, 0.5355, 0.1501, 6.69e-4])
    torch.testing.assert_close(alpha.square(), expected, atol=1e-4, rtol=2e-3)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones(4))


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_the_true_prediction_has_no_loss(prediction):
    schedule = Schedule(NoiseConfig(prediction=prediction))
    latent, eps = noise(2), noise(2).flip(0)
    time = torch.tensor([0.2, 0.9])

    def perfect(noisy, time, condition):
        alpha, sigma = (per_volume(value, noisy) for value in schedule.alpha_sigma(time))
        return eps if prediction == "epsilon" else alpha * eps - sigma * latent

    loss = denoising_loss(perfect, schedule, latent, latent, time=time, noise=eps)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("error", "expected"), [("l1", 0.5), ("mse", 0.25)])
def test_the_loss_is_the_error_that_was_asked_for(error, expected):
    schedule = Schedule(NoiseConfig(prediction="epsilon"))
    latent, eps = noise(2), noise(2).flip(0)

    def off_by_half(noisy, time, condition):
        return eps + 0.5

    time = torch.tensor([0.2, 0.9])
    loss = denoising_loss(off_by_half, schedule, latent, latent, time=time, noise=eps, error=error)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_network_is_shown_its_own_clean_estimate_which_has_no_gradient():
    schedule, seen = Schedule(NoiseConfig()), []
    weight = torch.tensor(0.5, requires_grad=True)

    def network(noisy, time, condition, previous):
        seen.append(previous)
        return weight * noisy

    time = torch.tensor([0.2, 0.9])
    output = self_conditioned(network, schedule)(noise(2), time, noise(2))
    assert seen[0] is None
    assert not seen[1].requires_grad
    torch.testing.assert_close(seen[1], own_estimate(schedule, output, noise(2), time).detach())
    output.sum().backward()
    torch.testing.assert_close(weight.grad, noise(2).sum())


def test_an_estimate_from_nearly_pure_noise_stays_in_range():
    schedule = Schedule(NoiseConfig(prediction="epsilon"))
    shown = own_estimate(schedule, torch.zeros_like(noise(1)), noise(1), torch.ones(1))
    assert shown.abs().max() == 5.0


def test_a_dropped_condition_is_zeros_and_the_others_stay():
    condition = dropped(noise(2), torch.tensor([True, False]))
    assert not condition[0].any()
    assert torch.equal(condition[1], noise(2)[1])


def test_times_of_a_batch_are_spread_over_the_whole_range():
    times = stratified_times(8, torch.Generator().manual_seed(3))
    assert sorted((times * 8).floor().clamp(max=7).int().tolist()) == list(range(8))


@pytest.mark.parametrize(("guidance", "nfe", "message"), [(2.0, 7, "even"), (-1.0, 8, "0 or more")])
def test_guidance_that_cannot_be_is_refused(guidance, nfe, message):
    with pytest.raises(ValueError, match=message):
        SamplerConfig(guidance=guidance, nfe=nfe)


def test_a_schedule_that_grows_down_is_refused():
    with pytest.raises(ValueError, match="beta_start"):
        NoiseConfig(beta_start=0.1, beta_end=0.01)
