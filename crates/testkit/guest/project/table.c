#include "table.h"

#include <stdlib.h>
#include <string.h>

/* Where the word is, or where it belongs. */
static size_t place_of(const struct table *table, const char *word)
{
    size_t low = 0, high = table->used;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(table->entries[middle].word, word) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int make_room(struct table *table)
{
    size_t room = table->room ? 2 * table->room : 16;
    struct entry *entries;

    if (table->used < table->room)
        return 0;
    entries = realloc(table->entries, room * sizeof(*entries));
    if (!entries)
        return -1;
    table->entries = entries;
    table->room = room;
    return 0;
}

int table_count(struct table *table, const char *word)
{
    size_t place = place_of(table, word);
    struct entry *entry;
    char *copy;

    if (place < table->used && !strcmp(table->entries[place].word, word)) {
        table->entries[place].count++;
        return 0;
    }
    copy = strdup(word);
    if (!copy || make_room(table)) {
        free(copy);
        return -1;
    }
    entry = table->entries + place;
    memmove(entry + 1, entry, (table->used - place) * sizeof(*entry));
    entry->word = copy;
    entry->count = 1;
    table->used++;
    return 0;
}

void table_free(struct table *table)
{
    for (size_t i = 0; i < table->used; i++)
        free(table->entries[i].word);
    free(table->entries);
}
