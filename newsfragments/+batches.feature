Homeservers that follow each other ask for the events of several logs in one request where many change at once; those
that do not understand it are asked as before.
