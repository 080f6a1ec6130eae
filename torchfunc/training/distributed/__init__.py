"""Training in several processes: what they exchange, and what they have to agree on."""
