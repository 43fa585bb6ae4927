`homeserver mirror promote-check` says what would become of each copy if its user moved here now; `homeserver mirror open` opens one that waits.
