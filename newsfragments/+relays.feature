A test network has a PKARR relay and an http relay where the official clients look for them.
