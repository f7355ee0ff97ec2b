"""Which pipeline a prior keeps or gets."""

import pytest

from codi_jax.checkpoint.pipelines import NO_PIPELINE, prior_pipeline


@pytest.mark.parametrize(
    ("channels", "xl", "found", "want"),
    [
        (4, False, None, "StableDiffusionPipeline"),
        (9, False, None, "StableDiffusionInpaintPipeline"),
        (8, False, "StableDiffusionPipeline", "StableDiffusionInstructPix2PixPipeline"),
        (9, True, None, "StableDiffusionXLInpaintPipeline"),
        (8, True, "CoDiModel", "StableDiffusionXLInstructPix2PixPipeline"),
        (4, False, "StableDiffusionInpaintPipeline", "StableDiffusionInpaintPipeline"),
        (9, False, "StableDiffusionInpaintPipeline", "StableDiffusionInpaintPipeline"),
        (4, False, "FlaxStableDiffusionImg2ImgPipeline", "StableDiffusionImg2ImgPipeline"),
        (4, False, "LatentConsistencyModelPipeline", "LatentConsistencyModelPipeline"),
        (4, True, "StableDiffusionPipeline", "StableDiffusionXLPipeline"),
        (4, False, "StableDiffusionControlNetPipeline", "StableDiffusionPipeline"),
        (4, False, ["pipeline", "Evil"], "StableDiffusionPipeline"),
        (5, False, "StableDiffusionDepth2ImgPipeline", NO_PIPELINE),
        (7, False, None, NO_PIPELINE),
    ],
)
def test_the_class(channels, xl, found, want):
    assert prior_pipeline(channels, xl=xl, found=found) == want
