"""From a trained model to pictures: loading it, sampling, the user's files; needs no config."""
