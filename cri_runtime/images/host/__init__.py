"""Images made of this host's own programs: what they load is found and copied, so no registry is needed."""
