Homeservers that trust each other tell each other of their users' newest records, and publish them again where the network has forgotten them.
