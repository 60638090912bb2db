"""Device, precision, batching and seeding: the only place that names a kind of accelerator."""
