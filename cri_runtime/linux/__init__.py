"""Every system call wrapper of the runtime: the kernel's names, no policy. The only room with ctypes."""
