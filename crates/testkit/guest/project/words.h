#ifndef WORDS_H
#define WORDS_H

#include <stddef.h>
#include <stdio.h>

/* Reads the next word in small letters; 0 at the end. */
int next_word(FILE *input, char *word, size_t size);

#endif
