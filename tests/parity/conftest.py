"""PyTorch models with random weights, saved as diffusers saves them, and their outputs."""

import shutil

import jax
import numpy as np
import pytest

from codi_jax.checkpoint.diffusers_format import load_config, load_params, save_model


@pytest.fixture(autouse=True)
def arrays_of_numpy(unchecked):
    """Both sides get the same numpy arrays, which the annotations of networks do not allow."""


class Parity:
    """One directory for the models, and how both sides are run."""

    def __init__(self, root):
        self.root = root

    def save(self, model, seed=0):
        """Make every parameter count, save the PyTorch model, and return its directory."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 1:  # biases, and the scales of norms
                    parameter += 0.1 * noise
                elif not parameter.any():  # ControlNet's zero convolutions
                    parameter += noise / parameter[0].numel() ** 0.5
        model.eval().requires_grad_(False)
        directory = self.root / str(len(list(self.root.iterdir())))
        model.save_pretrained(directory, safe_serialization=True)
        return directory

    def config(self, cls, directory):
        return cls.from_config(load_config(directory))

    def params(self, init, directory, *names):
        """The weights in the directory, as the subtree ``names`` of what ``init`` makes."""
        template = jax.eval_shape(init, jax.random.key(0))
        for name in names:
            template = template[name]
        return load_params(directory, template)

    def check_saved_again(self, model, config, params):
        """PyTorch loads what we write and gets the model that it once saved."""
        import torch

        directory = self.root / f"again-{len(list(self.root.iterdir()))}"
        save_model(directory, {"_class_name": type(model).__name__, **config.to_config()}, params)
        again = type(model).from_pretrained(directory)
        assert type(config).from_config(dict(again.config)) == config
        wanted, found = model.state_dict(), again.state_dict()
        assert wanted.keys() == found.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)

    def ours(self, f, *args, large=False):
        """Small models are compiled with few optimisations: for them compiling costs most."""
        options = None if large else {"xla_backend_optimization_level": 0}
        return jax.tree.map(np.asarray, jax.jit(f, compiler_options=options)(*args))

    def forget(self):
        """Delete what was saved: full-size models fill disks."""
        shutil.rmtree(self.root)
        self.root.mkdir()

    def torch(self, *arrays):
        """Ours to PyTorch's: NHWC -> NCHW, integers as int64."""
        import torch

        swapped = [a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for a in arrays]
        tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in swapped]
        return [x if x.is_floating_point() else x.long() for x in tensors]

    def error(self, ours, theirs):
        """Largest deviation, relative to the largest value of PyTorch's output."""
        theirs = theirs.detach().numpy()
        theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
        assert ours.shape == theirs.shape
        assert np.abs(theirs).max() > 1e-2
        return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="session")
def parity(tmp_path_factory):
    return Parity(tmp_path_factory.mktemp("parity"))
