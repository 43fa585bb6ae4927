`homeserver mirror status --watch` shows how copies fare as it changes: how many are whole, and first those that are not.
