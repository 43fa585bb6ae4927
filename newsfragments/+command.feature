The command `homeserver`: `status` shows how a running node is, `invite new` and `invite list` make and list signup tokens; all of them with `--json`.
