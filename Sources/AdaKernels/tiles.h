// Tables of tiles: a tile function is written once with its numbers of tokens and panels as parameters, inlined for each pair of
// constants (so that its sums stay in registers), and listed in an ak_tile_set.
#pragma once
#include "internal.h"

#define AK_TILE_INSTANCE(target, kind, tokens, panels) \
    static target void kind##_##tokens##x##panels(const ak_tile *tile) { kind(tile, tokens, panels); }

#define AK_TILE_INSTANCES_3(target, kind, panels) \
    AK_TILE_INSTANCE(target, kind, 1, panels) AK_TILE_INSTANCE(target, kind, 2, panels) AK_TILE_INSTANCE(target, kind, 3, panels)
#define AK_TILE_INSTANCES_6(target, kind, panels) \
    AK_TILE_INSTANCES_3(target, kind, panels) AK_TILE_INSTANCE(target, kind, 4, panels) AK_TILE_INSTANCE(target, kind, 5, panels) \
    AK_TILE_INSTANCE(target, kind, 6, panels)
#define AK_TILE_INSTANCES_8(target, kind, panels) \
    AK_TILE_INSTANCES_6(target, kind, panels) AK_TILE_INSTANCE(target, kind, 7, panels) AK_TILE_INSTANCE(target, kind, 8, panels)

#define AK_TILE_INSTANCES_12(target, kind, panels) \
    AK_TILE_INSTANCES_8(target, kind, panels) AK_TILE_INSTANCE(target, kind, 9, panels) AK_TILE_INSTANCE(target, kind, 10, panels) \
    AK_TILE_INSTANCE(target, kind, 11, panels) AK_TILE_INSTANCE(target, kind, 12, panels)

#define AK_TILE_ROW_3(kind, panels) kind##_1x##panels, kind##_2x##panels, kind##_3x##panels
#define AK_TILE_ROW_6(kind, panels) AK_TILE_ROW_3(kind, panels), kind##_4x##panels, kind##_5x##panels, kind##_6x##panels
#define AK_TILE_ROW_8(kind, panels) AK_TILE_ROW_6(kind, panels), kind##_7x##panels, kind##_8x##panels
#define AK_TILE_ROW_12(kind, panels) AK_TILE_ROW_8(kind, panels), kind##_9x##panels, kind##_10x##panels, kind##_11x##panels, kind##_12x##panels

// Up to 8 tokens by 3 panels, 3 tokens by 4: for 32 vector registers that hold a whole panel row each. One token takes `alone` panels: 1 if the
// arithmetic of one panel keeps up with memory, because a single stream is read faster.
#define AK_TILES_8X3(target, kind, alone) \
    AK_TILE_INSTANCES_8(target, kind, 1) AK_TILE_INSTANCES_8(target, kind, 2) AK_TILE_INSTANCES_8(target, kind, 3) \
    AK_TILE_INSTANCES_3(target, kind, 4) \
    static const ak_tile_set kind##_set = { \
        .tokens = 8, .panels = {alone, alone, 4, 4, 3, 3, 3, 3, 3}, \
        .run = {{AK_TILE_ROW_8(kind, 1)}, {AK_TILE_ROW_8(kind, 2)}, {AK_TILE_ROW_8(kind, 3)}, {AK_TILE_ROW_3(kind, 4)}}}

// Up to 6 tokens by 2 panels, 3 tokens by 4: where each sum takes two of 32 registers.
#define AK_TILES_6X2(target, kind, ...) \
    AK_TILE_INSTANCES_6(target, kind, 1) AK_TILE_INSTANCES_6(target, kind, 2) AK_TILE_INSTANCES_3(target, kind, 3) \
    AK_TILE_INSTANCES_3(target, kind, 4) \
    static const ak_tile_set kind##_set = { \
        .tokens = 6, .panels = {4, 4, 4, 4, 2, 2, 2}, \
        .run = {{AK_TILE_ROW_6(kind, 1)}, {AK_TILE_ROW_6(kind, 2)}, {AK_TILE_ROW_3(kind, 3)}, {AK_TILE_ROW_3(kind, 4)}}, ##__VA_ARGS__}

// Up to 12 tokens by one panel: where each sum takes two of 32 registers, and the panel is read from memory meanwhile.
#define AK_TILES_12X1(target, kind) \
    AK_TILE_INSTANCES_12(target, kind, 1) \
    static const ak_tile_set kind##_set = { \
        .tokens = 12, .panels = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, .run = {{AK_TILE_ROW_12(kind, 1)}}}

// Up to 6 tokens by one panel, 3 by 2, 1 by 4: where each sum takes two of 16 registers.
#define AK_TILES_6X1(target, kind) \
    AK_TILE_INSTANCES_6(target, kind, 1) AK_TILE_INSTANCES_3(target, kind, 2) AK_TILE_INSTANCE(target, kind, 1, 3) \
    AK_TILE_INSTANCE(target, kind, 1, 4) \
    static const ak_tile_set kind##_set = { \
        .tokens = 6, .panels = {4, 4, 2, 2, 1, 1, 1}, \
        .run = {{AK_TILE_ROW_6(kind, 1)}, {AK_TILE_ROW_3(kind, 2)}, {kind##_1x3}, {kind##_1x4}}}

// Up to 6 tokens by 4 panels: as AK_TILES_4.
#define AK_TILE_ROW_OF_TOKENS_6(kind) {kind##_1, kind##_2, kind##_3, kind##_4, kind##_5, kind##_6}
#define AK_TILES_6_OF(target, kind) \
    AK_TILE_OF_TOKENS(target, kind, 1) AK_TILE_OF_TOKENS(target, kind, 2) AK_TILE_OF_TOKENS(target, kind, 3) AK_TILE_OF_TOKENS(target, kind, 4) \
    AK_TILE_OF_TOKENS(target, kind, 5) AK_TILE_OF_TOKENS(target, kind, 6)
#define AK_TILE_SET_6(kind, ...) {.tokens = 6, .panels = {4, 4, 4, 4, 4, 4, 4}, \
    .run = {AK_TILE_ROW_OF_TOKENS_6(kind), AK_TILE_ROW_OF_TOKENS_6(kind), AK_TILE_ROW_OF_TOKENS_6(kind), AK_TILE_ROW_OF_TOKENS_6(kind)}, ##__VA_ARGS__}

// Up to 4 tokens by 4 panels: where only the sums over a block are in registers, so that panels are a loop of the tile's own.
#define AK_TILE_OF_TOKENS(target, kind, tokens) static target void kind##_##tokens(const ak_tile *tile) { kind(tile, tokens); }
#define AK_TILE_ROW_OF_TOKENS_4(kind) {kind##_1, kind##_2, kind##_3, kind##_4}
#define AK_TILES_4_OF(target, kind) \
    AK_TILE_OF_TOKENS(target, kind, 1) AK_TILE_OF_TOKENS(target, kind, 2) AK_TILE_OF_TOKENS(target, kind, 3) AK_TILE_OF_TOKENS(target, kind, 4)
#define AK_TILES_4(target, kind, ...) \
    AK_TILES_4_OF(target, kind) \
    static const ak_tile_set kind##_set = { \
        .tokens = 4, .panels = {4, 4, 4, 4, 4}, \
        .run = {AK_TILE_ROW_OF_TOKENS_4(kind), AK_TILE_ROW_OF_TOKENS_4(kind), AK_TILE_ROW_OF_TOKENS_4(kind), AK_TILE_ROW_OF_TOKENS_4(kind)}, ##__VA_ARGS__}
#define AK_TILE_SET_4(kind) {.tokens = 4, .panels = {4, 4, 4, 4, 4}, \
    .run = {AK_TILE_ROW_OF_TOKENS_4(kind), AK_TILE_ROW_OF_TOKENS_4(kind), AK_TILE_ROW_OF_TOKENS_4(kind), AK_TILE_ROW_OF_TOKENS_4(kind)}}
