"""The whole life of a Stable Diffusion checkpoint here, each end held against PyTorch diffusers:
import, text to image, distillation, resume, sampling, export, sampling in PyTorch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="parity extra")
diffusers = pytest.importorskip("diffusers", reason="parity extra")
transformers = pytest.importorskip("transformers", reason="parity extra")

from codi_jax.diffusion.guidance import GuidedCondition  # noqa: E402
from codi_jax.run.train import train  # noqa: E402
from codi_jax.sample import Sampler  # noqa: E402
from codi_jax.sampling.conversion import (  # noqa: E402
    Conversion,
    export_model,
    import_checkpoint,
)
from codi_jax.sampling.guidance import Guidance  # noqa: E402
from codi_jax.sampling.position_noise import position_noise  # noqa: E402
from codi_jax.typing import UserError  # noqa: E402
from configs import sr  # noqa: E402

# diffusers hands torch tensors to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT, NEGATIVE = "a cat", "at"
TOLERANCE = 1e-3  # of pictures in [-1, 1]
SIDE = 8  # latents


def write_tokenizer(directory):
    """CLIP's tokenizer with a vocabulary of a few letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(c + "</w>" for c in letters), "at</w>", "cat</w>"]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    directory.mkdir(parents=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    (directory / "merges.txt").write_text("#version: 0.2\na t</w>\nc at</w>\n")
    tokenizer = transformers.CLIPTokenizer(
        str(directory / "vocab.json"), str(directory / "merges.txt"), model_max_length=16
    )
    return tokenizer, len(vocabulary)


VAE = {
    "block_out_channels": (8, 8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
UNET = {
    "sample_size": SIDE,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def text_config(vocabulary, width):
    return transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=vocabulary - 1,
        bos_token_id=vocabulary - 2,
        projection_dim=10,
    )


def make_checkpoint(root, prediction_type):
    """A small Stable Diffusion with random weights, saved by PyTorch diffusers."""
    torch.manual_seed(0)
    tokenizer, size = write_tokenizer(root / "vocabulary")
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(**VAE),
        unet=diffusers.UNet2DConditionModel(
            **UNET,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=24,
        ),
        text_encoder=transformers.CLIPTextModel(text_config(size, 24)),
        tokenizer=tokenizer,
        scheduler=diffusers.DDIMScheduler(
            **BETAS,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(root / "sd", safe_serialization=True)
    return root / "sd"


def make_xl(root):
    """A small Stable Diffusion XL."""
    torch.manual_seed(0)
    tokenizer, size = write_tokenizer(root / "vocabulary")
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=diffusers.AutoencoderKL(**VAE, scaling_factor=0.13025),
        unet=diffusers.UNet2DConditionModel(
            **UNET,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            cross_attention_dim=24 + 16,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 10,
        ),
        text_encoder=transformers.CLIPTextModel(text_config(size, 24)),
        text_encoder_2=transformers.CLIPTextModelWithProjection(text_config(size, 16)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=diffusers.EulerDiscreteScheduler(
            **BETAS, timestep_spacing="leading", steps_offset=1
        ),
    )
    pipeline.save_pretrained(root / "xl", safe_serialization=True)
    return root / "xl"


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def checkpoint(request, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("sd"), "v_prediction")


def noise(side=SIDE):
    return np.random.default_rng(3).normal(size=(side, side, 4)).astype(np.float32)


def as_torch(array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))[None])


def decoded(sampler, latents):
    """Our float pictures [1, H, W, 3] in [-1, 1]."""
    params = {"params": sampler.model.params["vae"]}
    return np.clip(sampler.pictures.vae.apply(params, latents, method="decode"), -1, 1)


def trajectory(checkpoint, negative):
    """Ours and diffusers' picture [32, 32, 3] in [-1, 1] of 10 guided steps from one noise."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(checkpoint)
    options = {"num_inference_steps": 10, "guidance_scale": 5.0, "output_type": "pt"}
    theirs = pipe(PROMPT, negative_prompt=negative, latents=as_torch(noise()), **options).images
    sampler = Sampler.load(checkpoint)
    pictures, shape = sampler.pictures, (1, SIDE, SIDE, 4)
    guidance = Guidance(prompt=PROMPT, negative_prompt=negative, guidance_scale=5.0)
    words = sampler.encode(guidance)
    latents = pictures.sample_latents(
        sampler.params,
        jnp.asarray(noise()[None]),
        words.map(lambda text: pictures.text_condition(text, shape)),
        steps=10,
        sampler=sampler.model.sampler,
    )
    return decoded(sampler, latents)[0], theirs[0].permute(1, 2, 0).numpy() * 2 - 1, sampler


def test_text_to_image_trajectory(checkpoint):
    ours, theirs, sampler = trajectory(checkpoint, NEGATIVE)
    assert theirs.std() > 0.05
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    picture = sampler.generate(
        PROMPT, negative_prompt=NEGATIVE, steps=10, guidance_scale=5.0, noise=noise()
    )
    np.testing.assert_allclose(np.asarray(picture) / 127.5 - 1, theirs, atol=0.005)


def test_text_to_image_trajectory_of_xl(tmp_path):
    ours, theirs, _ = trajectory(make_xl(tmp_path), None)
    assert theirs.std() > 0.05
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def config_for(path, adapter, steps):
    config = sr.get_config("tiny")
    config.model.pretrained, config.model.adapter = str(path), adapter
    config.steps, config.tensorboard = steps, False
    config.optim.decay, config.optim.warmup_steps = "constant", 2
    # Strong steps, so that a few of them show in the pictures.
    config.optim.learning_rate, config.optim.mu_multiplier = 3e-3, 30.0
    config.ema.eval = 0.1
    config.eval.steps = (4,)
    config.batch_size, config.mesh.data = 2, 1
    if adapter != "mix":
        config.model.trainable = "adapter/.*"
    return config


def small_picture():
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))


def test_whole_life_with_the_mix_adapter(sd, tmp_path):
    with jax.numpy_dtype_promotion("standard"):
        import_checkpoint(str(sd), tmp_path / "imported", Conversion())
        workdir = tmp_path / "run"
        train(config_for(tmp_path / "imported", "mix", 4), workdir)
        sampler = Sampler.load(workdir, tile=0)
        ours = np.asarray(sampler(small_picture(), steps=4, prompt=PROMPT, color_fix="none"))
    assert "trust_remote_code" in export_model(str(workdir), tmp_path / "out", Conversion())
    mu = float(sampler.model.params["adapter"]["mu"])
    assert abs(mu) > 1e-3, "the adapter must matter"
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    # Four calls of the network, so five keys: the first is the initial noise's.
    z = position_noise(jax.random.split(jax.random.key(0), 5)[0], (16, 16, 4))
    options = {"num_inference_steps": 4, "latents": as_torch(z), "output_type": "pt"}
    theirs = pipe(small_picture(), prompt=PROMPT, **options).images[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(our_floats(sampler, z), theirs, atol=TOLERANCE)
    np.testing.assert_allclose(ours / 127.5 - 1, theirs, atol=0.005)
    with pytest.raises(UserError, match="not an empty folder"):
        export_model(str(workdir), tmp_path / "out", Conversion())


def our_floats(sampler, z):
    """The 4-step picture as floats, before it is rounded to bytes."""
    lr = jnp.asarray(np.asarray(small_picture())[None])
    pictures, params = sampler.pictures, sampler.params
    cond = pictures.image_condition(params["vae"], {"lr": lr})
    cond = {**cond, **pictures.text_condition(sampler.encode_prompt([PROMPT]), (1, 16, 16, 4))}
    condition = GuidedCondition(cond=cond)
    latents = pictures.sample_latents(params, jnp.asarray(z[None]), condition, steps=4)
    return decoded(sampler, latents)[0]


@pytest.mark.parametrize("adapter", ["controlnet", "t2i"])
def test_exported_adapters_run_in_their_own_pipelines(sd, tmp_path, adapter):
    with jax.numpy_dtype_promotion("standard"):
        train(config_for(sd, adapter, 2), tmp_path / "run")
    export_model(str(tmp_path / "run"), tmp_path / "out", Conversion())
    sampler = Sampler.load(tmp_path / "run")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    lr = jnp.asarray(np.asarray(small_picture())[None])
    image = np.asarray(sampler.pictures.image_condition(sampler.params["vae"], {"lr": lr})["image"])
    hint = (torch.from_numpy(image.transpose(0, 3, 1, 2).copy()) + 1) / 2
    z = noise(16)
    options = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "pt"}
    theirs = pipe(PROMPT, image=hint, latents=as_torch(z), **options).images[0]
    if torch.is_tensor(theirs):  # the pipeline of T2I-Adapters gives an array whatever was asked
        theirs = theirs.permute(1, 2, 0).numpy()
    theirs = theirs * 2 - 1
    np.testing.assert_allclose(our_floats(sampler, z), theirs, atol=TOLERANCE)
