"""What a run would cost, before it is started: images, FLOPs, disk, GPU-hours. Reads no image, loads no weights."""
