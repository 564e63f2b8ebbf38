#include <stdio.h>

#include "table.h"
#include "words.h"

int main(void)
{
    struct table table = {0};
    char word[64];

    while (next_word(stdin, word, sizeof(word))) {
        if (table_count(&table, word)) {
            perror("wordcount");
            return 1;
        }
    }
    for (size_t i = 0; i < table.used; i++)
        printf("%s %lu\n", table.entries[i].word, table.entries[i].count);
    table_free(&table);
    return 0;
}
