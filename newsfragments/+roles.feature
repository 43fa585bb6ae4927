Several processes on one outside Redis (`--role web`, `--role background`) mirror as one does: the one in the background
follows peers, opens accounts and has the admin API; the others show copies, and learn within moments what has changed.
