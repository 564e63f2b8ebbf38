#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>

struct entry {
    char *word;
    unsigned long count;
};

/* A table of words in the order of the alphabet. */
struct table {
    struct entry *entries;
    size_t used;
    size_t room;
};

/* Counts a word once more; -1 when there is no memory. */
int table_count(struct table *table, const char *word);
void table_free(struct table *table);

#endif
