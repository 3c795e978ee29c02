"""Strong views: statistics exchange, object transforms and pastes, all on batched tensors."""
