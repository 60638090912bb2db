"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861) up to its last depthwise convolution, for real ImageNet weights.

The weights were trained with TensorFlow's padding, which at stride 2 on even sizes pads right and bottom only, and
with a batch-norm epsilon of 0.001. They take pixels in -1..1.
"""

from collections import OrderedDict

from torch import nn

# Stride of each depthwise convolution and channels after the pointwise convolution behind it.
_BLOCKS = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, None)]


def _layer(name, channels_in, channels_out, kernel, stride=1, groups=1):
    """Convolution, batch norm and clipped ReLU, named as in the weights file."""
    padding = [nn.ZeroPad2d((0, 1, 0, 1))] if stride == 2 else []
    convolution = nn.Conv2d(
        channels_in,
        channels_out,
        kernel,
        stride=stride,
        padding=1 if kernel == 3 and stride == 1 else 0,
        groups=groups,
        bias=False,
    )
    norm = nn.BatchNorm2d(channels_out, eps=0.001)
    parts = [(f"{name}_pad", part) for part in padding]
    return [*parts, (name, convolution), (f"{name}_bn", norm), (f"{name}_relu", nn.ReLU6())]


def mobilenet_v1():
    """Return the network with random weights; it gives (n, 1024, 7, 7) for 224 x 224 pixels."""
    layers = _layer("conv1", 3, 32, 3, stride=2)
    channels = 32
    for number, (stride, after) in enumerate(_BLOCKS, start=1):
        layers += _layer(f"conv_dw_{number}", channels, channels, 3, stride, groups=channels)
        if after is not None:
            layers += _layer(f"conv_pw_{number}", channels, after, 1)
            channels = after
    return nn.Sequential(OrderedDict(layers))


def load_mobilenet_v1(directory):
    """Return the network with ImageNet weights from the data folder."""
    from safetensors.torch import load_file

    network = mobilenet_v1()
    tensors = load_file(directory / "mobilenet_v1" / "mobilenet_v1_1.0_224_truncated.safetensors")
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return network.eval()
