"""UniADS's search: an evolutionary sampler for conditional spaces with several objectives."""
