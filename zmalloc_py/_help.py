"""The help text of the command line: loaded when it is asked for."""

from zmalloc._cli import USAGE

HELP = f"""{USAGE}

Runs a Python program with every byte counted. Options come before the program:

  --limit SIZE   cap what the program may use; beyond it is a LimitError, a MemoryError.
                 The cap stays for the life of the process. A program that dies of it
                 ends with exit status 53 and one line that says so.
  --reserve SIZE what may be used beyond it for the error and its handlers: 1MiB
                 unless told; 0 refuses at the limit itself
  --mode MODE    exact: count each block, as ever; held: count what the system gives,
                 in arenas of 1 MiB, which costs nothing at small objects
  --held SIZE    cap what the system gives for it: arenas, large blocks, frames
  --rlimit SIZE  let the kernel cap the process's data at its size now plus SIZE
  --stats        print a table of all figures to stderr at the end
  --json FILE    write the figures, the exit status and the versions to FILE at the end

A SIZE is bytes, or 64MiB, 1.5g, 300kB (all 1024-based), or 80% of the memory there is.
ZMALLOC_LIMIT=SIZE in the environment caps any process that imports zmalloc;
ZMALLOC_MODE=held has it count as --mode held does."""
