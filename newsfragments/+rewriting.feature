The log of the private Redis is written anew only where the disk has room for it, and early where that makes room: it can no longer fill the disk.
