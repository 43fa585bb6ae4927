A peer that lies or offers accounts without end is named in the log and in `homeserver mirror status`, and what is kept in mind of it is bounded.
