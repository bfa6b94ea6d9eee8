/* zone.h - mode `held`: hooks in MEM and OBJ for as long as an error is on its way.
 *
 * They count nothing and pass each call on. An error that has been asked for wants to be looked at by each request of
 * its thread, until it has landed; in mode `held` only RAW would be seen otherwise. */
#ifndef ZMALLOC_ZONE_H
#define ZMALLOC_ZONE_H

#include <stdbool.h>

/* Puts them in, if they are not there. With the GIL held, in a hook or outside. They go by themselves. */
void zone_open(void);

/* Takes them out where they are on top. */
void zone_close(void);

/* Outside of all hooks, with the GIL held: are they where they are thought to be? Another tool may have wrapped them,
 * or thrown them out. */
void zone_look(void);

#endif
