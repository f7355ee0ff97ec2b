"""What the study's report says between its tables."""

#: Beside other programs, where there are any.
PEERS = """## Beside other programs

The same inputs, scored by the same code. The parameters are those of all networks; the seconds are
each program's own, on the machine that it ran on.

{table}

"""
#: The report; what varies is in braces.
REPORT = """# Results of the study

Written by `{command}`. Every method and every ablation
starts from the embedded prior and has the same budget: {passes:,.0f} U-Net passes with crops of
{crop} px (all that a training step computes, counted in forward calls of the plain U-Net for one
picture), a method of two stages that much in all. Device: {device}. Scored on
{main}. [study.md](study.md) says how to read it.

{missing}{perceptual} is the perceptual measure, SWD (sliced Wasserstein distance on Laplacian
pyramids) the one of distributions; [metrics.md](metrics.md) defines them. Brackets: 95% bootstrap
intervals over the pictures; those of differences are of each picture's difference, those of SWD's
differences jackknife intervals over groups of pictures. Two rows are level where the interval of
their difference has 0 in it.

## Does the paper's order hold?

{order}

In fewer steps:

{fewer}

## Methods

{methods}

![Quality against steps](images/study_methods.png)
![SWD against {perceptual}, a point per number of steps](images/study_metrics.png)

{peers}Photos that come with scikit-image, four steps:

![Pictures side by side](images/study_pictures.png)

{elsewhere}## Ablations

Each changes one thing of CoDi.

{changes}

{ablations}

![Quality against steps](images/study_ablations.png)

## Loss curves

What healthy looks like: the loss falls fast at first and then slowly, and jumps about by the time
`t` that each step draws.

![Losses](images/study_losses.png)

## Cost

One training step, counted and measured on one device, and the steps that the budget allowed.

{cost}

Sampling, where the condition's features are computed once per picture:

{sampling}
"""
