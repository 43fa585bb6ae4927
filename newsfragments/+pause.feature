`homeserver peer pause NAME` leaves a peer alone, over restarts too, until `homeserver peer resume NAME`.
