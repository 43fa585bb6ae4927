Users' websites: a site at `<key>` and `<label>.<key>`, from the files below `/pub/website/`.
