"""Which node each pod runs on: queue, filters, scores, binding."""
