"""amoCRM's outgoing webhooks: the outbox and the delivery with retries."""
