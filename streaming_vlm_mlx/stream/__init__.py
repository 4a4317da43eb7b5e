"""The stream: what is kept, the cache, the sampler, the session and the engine thread."""
