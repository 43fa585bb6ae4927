`homeserver mirror status --watch` shows how copies fare as it changes.
