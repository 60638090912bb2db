"""A small residual network for images."""

import torch
from torch import nn
from torch.nn import functional as F


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut; ``stride`` 2 halves the height and the width."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        if stride == 1 and in_width == width:
            self.shortcut: nn.Module = nn.Identity()
        else:
            # Averaging before the 1 x 1 convolution lets every position take part in the shortcut;
            # a strided 1 x 1 convolution would drop three of four.
            pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(in_width, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """Small, fully convolutional residual network without a head.

    The children are, in forward order, ``stem`` and the residual blocks ``block1``, ``block2``, and so on.
    The first block of every group but the first halves the height and the width.

    Parameters
    ----------
    widths : tuple of int, default=(32, 64, 128, 192)
        Channels of each group of blocks; the stem has the first of them.
    blocks : tuple of int, default=(1, 1, 1, 1)
        Residual blocks in each group, as many numbers as in `widths`.
    in_channels : int, default=3
        Channels of the input images.

    Attributes
    ----------
    stage_names : list of str
        Names of the child modules, in forward order.
    stage_widths : list of int
        Channels of the output of each stage, in the order of `stage_names`.

    Examples
    --------
    >>> import torch
    >>> from sktransfer.backbones.networks.small_resnet import SmallResNet
    >>> network = SmallResNet(widths=(4, 8), blocks=(1, 1)).eval()
    >>> network.stage_names
    ['stem', 'block1', 'block2']
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 192),
        blocks: tuple[int, ...] = (1, 1, 1, 1),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(
                "The 'widths' and 'blocks' parameters of SmallResNet must have the same length. "
                f"Got {len(widths)} widths and {len(blocks)} blocks instead."
            )
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.stage_names = ["stem"]
        self.stage_widths = [widths[0]]
        for group, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for index in range(count):
                stride = 2 if group > 0 and index == 0 else 1
                name = f"block{len(self.stage_names)}"
                self.add_module(name, _ResidualBlock(self.stage_widths[-1], width, stride))
                self.stage_names.append(name)
                self.stage_widths.append(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the last feature map.

        Parameters
        ----------
        x : torch.Tensor of shape (n_images, in_channels, height, width)
            Normalised images.

        Returns
        -------
        torch.Tensor of shape (n_images, widths[-1], height', width')
            Output of the last block; each group but the first has halved the height and the width,
            rounded up.
        """
        for name in self.stage_names:
            x = getattr(self, name)(x)
        return x
