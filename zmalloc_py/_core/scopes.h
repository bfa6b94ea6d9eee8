/* scopes.h - the set of limits.
 *
 * Threads and tasks do not nest, so there is no stack of them. The smallest limit is in force, and the smallest
 * hard limit, each on its own. There is at most one bare limit, set by a call; there are scopes, entered by
 * `with`; and there are sealed ones, which stay for the life of the process.
 *
 * May be called from any thread; entering and leaving allocate nothing. */
#ifndef ZMALLOC_SCOPES_H
#define ZMALLOC_SCOPES_H

#include <Python.h>

#include "zcore.h"

/* Bytes; SIZE_MAX where there is none. */
struct scope_marks {
    size_t limit, hard, held;
};

extern const struct scope_marks scope_no_marks;

/* One limit() or budget() call, or track(). From malloc, not a part of the Python object: an object that its
 * interpreter never destroys must not leave a hole in the lists when the interpreter's memory goes. */
struct scope {
    struct scope_marks marks;
    const char *name;    /* what errors call it, static text */
    uint64_t number;     /* tells it from all others, for the life of the process */
    bool is_sealed, is_bare, is_entered;
    bool is_hit;         /* it has refused something, or raised */
    bool is_unsettled;   /* use has passed its limit, and has not been found at or below after a collection since */
    size_t start;        /* what was in use when it was entered */
    struct zaccount_scope measure; /* the peak since then */
    struct scope_marks before;     /* the bare limit that this one replaced, and that one's number */
    uint64_t before_number;
    struct scope *next_entered, *next;
};

/* A new one, of nobody yet; NULL: no memory. scope_free() takes an entered one out; a bare limit stays. */
struct scope *scope_new(struct scope_marks marks, const char *name);
void scope_free(struct scope *s);

/* As the process's bare limit, or its sealed one. The cap is in force on return. */
void scope_put_in_force(struct scope *s);

/* The bare limit that the scope has set goes, and what it replaced comes back. */
void scope_cancel(struct scope *s);

/* The scope's limits count. If room is not SIZE_MAX they are room and room + reserve beyond what is in use now. */
void scope_enter(struct scope *s, size_t room, size_t reserve);
void scope_leave(struct scope *s);

/* The most that was in use since the scope was entered. */
size_t scope_peak(struct scope *s);

/* "ended", "entered", "in force", "replaced" or "sealed". */
const char *scope_state(const struct scope *s);

/* limit(None): false under a seal. */
bool scopes_remove_bare(void);

/* Caps the process for good. */
void scopes_seal(struct scope_marks marks);

/* What is held is use from now on, or no longer. */
void scopes_mode_changed(void);

/* The smallest marks, and the sealed ones. Where held is use (hooks_held_is_used()) a seal on held is one on use. */
struct scope_marks scopes_in_force(void);
struct scope_marks scopes_sealed(void);

/* The scope whose limit is in force, 0 if there is none; what a scope's errors call it. */
uint64_t scopes_number(void);
const char *scopes_name(uint64_t number);

/* A number that no other scope has. */
uint64_t scopes_new_number(void);

bool scopes_are_sealed(void);

/* What happens at the limit, for the scopes that it concerns. */
void scopes_note_refusal(size_t n);      /* n more bytes were refused */
void scopes_note_crossing(size_t used);  /* use has gone up to that */
void scopes_note_settled(size_t used);   /* use has been found there after a collection */
void scopes_note_raised(uint64_t number);

/* Between the two this thread may go beyond the limits, for a report about a script that has left nothing.
 * What reports leave behind (modules that they imported) is added to the limits in force, up to 4 MiB in all,
 * so that the script's own last words have the room that they had before; the peak does not remember it.
 * Do not nest. */
void scopes_report_begin(void);
void scopes_report_end(void);

/* The peak of use, without what a report that is being made has asked for. */
size_t scopes_peak(void);

/* Once a process. */
void scopes_init(void);

#endif
