"""What a server counts, in Prometheus's format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "sare_requests", "Uploads by HTTP status and verdict.", ("status", "verdict"), registry=self.registry
        )
        self.waiting = Gauge("sare_queue_length", "Images that wait.", registry=self.registry)
        self.held = Gauge("sare_held_bytes", "Uploads in memory.", registry=self.registry)
        self.stages = Histogram(
            "sare_stage_seconds",
            "Of a batch in each stage; queued: of each image.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram("sare_batch_images", "Images a batch.", buckets=_IMAGES, registry=self.registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
