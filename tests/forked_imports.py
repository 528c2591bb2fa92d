"""What the server of tests.forked imports before it forks."""

import accelerate
import timm
import torch.utils.tensorboard

import sare_core.captioning.blip
import sare_core.detectors.sare
import sare_core.reconstruction.img2img
import sare_core.training.steps
import stages.app

__all__ = ["accelerate", "sare_core", "stages", "timm", "torch"]
