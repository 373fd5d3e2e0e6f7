"""From a Dockerfile and a context to an image: parse, understand, plan (all pure), then execute."""
