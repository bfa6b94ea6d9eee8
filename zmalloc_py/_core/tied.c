/* tied.c - lists of one thread that others look into. */
#include "tied.h"

static void take_out(struct tied **at)
{
    struct tied *one = *at;
    *at = one->next;
    if (atomic_load(&one->ended))
        one->drop(one);
    else
        one->thread = NULL;
}

void tied_add(struct tied **list, struct tied *one, void (*drop)(struct tied *one))
{
    one->drop = drop;
    one->thread = thread_self();
    one->next = *list;
    *list = one;
}

bool tied_remove(struct tied **list, struct tied *one)
{
    if (!one->thread)
        return true;
    if (one->thread != thread_self()) {
        atomic_store(&one->ended, true);
        return false;
    }
    while (*list && *list != one)
        list = &(*list)->next;
    if (*list)
        take_out(list);
    return true;
}

size_t tied_sweep(struct tied **list, bool all)
{
    size_t count = 0;
    while (*list) {
        if (all || atomic_load(&(*list)->ended)) {
            take_out(list);
            count++;
        } else {
            list = &(*list)->next;
        }
    }
    return count;
}
