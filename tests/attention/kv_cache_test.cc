// Caches of keys and values: what they keep, share, give back and refuse.
#include "tests/support/compare.h"

#include <attend/attention/attention.h>
#include <attend/attention/kv_cache.h>
#include <attend/attention/linear_attention.h>
#include <attend/core/error.h>
#include <attend/core/threads.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

namespace attend::testing {
namespace {

// What a scale in float32 cannot express: rows become zeros or NaN, and others keep their bound.
TEST(KvCache, Int8RowsOfAnyMagnitude) {
    const std::vector<double> magnitudes = {0.0,   1e-300, 1e-45, 2e-43, 1e-37,  2e-36, 1e-30,
                                            1e-20, 1.0,    1e30,  3e38,  3.4e38, 1e39,  1e300};
    const auto count = static_cast<std::int64_t>(magnitudes.size());
    Tensor tokens = normal({1, 1, count, 8}, 1, DType::float64);
    for (std::int64_t t = 0; t < count; ++t) {
        for (std::int64_t c = 0; c < 8; ++c) {
            double& x = tokens.at<double>({0, 0, t, c});
            x = std::clamp(x, -1.0, 1.0) * magnitudes[static_cast<std::size_t>(t)];
            if (c == 5) x = -magnitudes[static_cast<std::size_t>(t)];
        }
    }
    KvCache cache({.kv_heads = 1, .head_dim = 8, .capacity = count, .dtype = DType::int8});
    cache.append(tokens, tokens);
    EXPECT_TRUE(same_bits(cache.keys(), cache.values()));
    for (std::int64_t t = 0; t < count; ++t) {
        const double magnitude = magnitudes[static_cast<std::size_t>(t)];
        SCOPED_TRACE(magnitude);
        const float scale = cache.value_scales().at<float>({0, 0, t});
        for (std::int64_t c = 0; c < 8; ++c) {
            const auto whole = static_cast<double>(cache.values().at<std::int8_t>({0, 0, t, c}));
            const double x = whole * static_cast<double>(scale);
            if (magnitude > 3.5e38) {
                EXPECT_TRUE(std::isnan(x));
            } else if (magnitude < 1.4e-36) {
                EXPECT_EQ(x, 0.0);
            } else {
                EXPECT_LE(std::fabs(x - tokens.at<double>({0, 0, t, c})), 0.5001 * static_cast<double>(scale));
                EXPECT_TRUE(std::isfinite(static_cast<float>(x)));
            }
        }
    }
    EXPECT_EQ(cache.value_scales().at<float>({0, 0, 4}), 0.0F);
    // One row reaches those that attend to it, by a few queries and by many.
    for (const std::int64_t queries : {2, 9}) {
        const Tensor q = zeros({1, 1, queries, 8});
        const AttentionResult y = attention(q, cache, {.mask = Mask::causal_bottom_right().with_query_offset(9)});
        EXPECT_TRUE(std::isfinite(y.output.at<float>({0, 0, 0, 5})));
        const AttentionResult last = attention(q, cache, {.mask = Mask::causal_bottom_right()});
        EXPECT_TRUE(std::isnan(last.output.at<float>({0, 0, queries - 1, 5})));
    }
}

TEST(KvCache, ContentsMakeAnother) {
    const Tensor k = normal({2, 1, 5, 8}, 1);
    const Tensor v = normal({2, 1, 5, 4}, 2);
    const Tensor q = normal({2, 1, 1, 8}, 3);
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16, DType::int8}) {
        SCOPED_TRACE(name_of(dtype));
        KvCache cache({.batch = 2, .kv_heads = 1, .head_dim = 8, .value_dim = 4, .capacity = 7, .dtype = dtype});
        cache.append(k, v, std::vector<std::int64_t>{3, 5});
        cache.set_left_padding(1, 2);
        const KvCacheContents contents = cache.contents();
        EXPECT_EQ(contents.keys.shape(), (Shape{2, 1, 5, 8}));
        KvCache other(cache.options(), contents);
        for (int step = 0; step < 2; ++step) {
            EXPECT_EQ(other.length(0), cache.length(0));
            EXPECT_EQ(other.left_padding(1), 2);
            EXPECT_EQ(other.bytes(), cache.bytes());
            EXPECT_TRUE(same_bits(attention(q, other).output, attention(q, cache).output));
            cache.append(k, v);
            other.append(k, v);
        }
        KvCacheOptions narrow = cache.options();
        narrow.head_dim = 4;
        EXPECT_THROW(KvCache(narrow, contents), ShapeError);
        KvCacheContents longer = contents;
        longer.lengths[0] = 6;
        EXPECT_THROW(KvCache(cache.options(), longer), ValueError);
    }
}

TEST(KvCache, ReordersTruncatesAndClears) {
    const Tensor k = normal({2, 1, 5, 8}, 1);
    const Tensor v = normal({2, 1, 5, 8}, 2);
    const Tensor q = normal({3, 1, 1, 8}, 3);
    KvCache cache({.batch = 2, .kv_heads = 1, .head_dim = 8, .capacity = 2});
    cache.append(k, v, std::vector<std::int64_t>{5, 3});
    cache.reorder(std::vector<std::int64_t>{1, 0, 1});
    EXPECT_EQ(cache.options().batch, 3);
    EXPECT_EQ(cache.length(0), 3);
    EXPECT_EQ(cache.length(1), 5);
    const AttentionResult y = attention(q, cache);
    const auto own = [&](const Tensor& t) { return t.view().slice(0, 1, 2).slice(2, 0, 3); };
    EXPECT_TRUE(
        same_bits(attention(q.view().slice(0, 0, 1), own(k), own(v)).output, y.output.view().slice(0, 0, 1).clone()));
    cache.truncate(1, 2);
    EXPECT_EQ(cache.length(1), 2);
    cache.clear();
    EXPECT_EQ(cache.length(1), 0);
    EXPECT_EQ(attention(q, cache).output.at<float>({2, 0, 0, 0}), 0.0F);
}

TEST(PagedKvCache, ForksShareAndCopyOnWrite) {
    const Tensor k = normal({1, 1, 20, 8}, 1);
    const Tensor v = normal({1, 1, 20, 8}, 2);
    const Tensor more = normal({2, 1, 1, 8}, 3);
    const Tensor q = normal({2, 1, 1, 8}, 4);
    PagedKvCache cache({.kv_heads = 1, .head_dim = 8, .page_size = 16, .pages = 3, .grows = false});
    const std::int64_t a = cache.add_sequence();
    cache.append(std::vector{a}, k, v);
    const std::int64_t b = cache.fork(a);
    EXPECT_EQ(cache.free_pages(), 1);  // nothing was copied
    cache.append(std::vector{a, b}, more, more);
    EXPECT_EQ(cache.free_pages(), 0);  // one of the two got a page of its own
    EXPECT_EQ(cache.block_table(a)[0], cache.block_table(b)[0]);
    EXPECT_NE(cache.block_table(a)[1], cache.block_table(b)[1]);
    const AttentionResult y = attention(q, cache, std::vector{a, b});
    for (std::int64_t s = 0; s < 2; ++s) {
        Tensor keys = Tensor::empty({1, 1, 21, 8});
        Tensor values = Tensor::empty({1, 1, 21, 8});
        keys.view().slice(2, 0, 20).copy_from(k);
        values.view().slice(2, 0, 20).copy_from(v);
        keys.view().slice(2, 20, 21).copy_from(more.view().slice(0, s, s + 1));
        values.view().slice(2, 20, 21).copy_from(more.view().slice(0, s, s + 1));
        EXPECT_TRUE(same_bits(attention(q.view().slice(0, s, s + 1), keys, values).output,
                              y.output.view().slice(0, s, s + 1).clone()));
    }
    // Exhausted: nothing changes, and pages come back when a sequence is freed.
    const Tensor many = normal({1, 1, 16, 8}, 5);
    EXPECT_EQ(message_of<ValueError>([&] { cache.append(std::vector{a}, many, many); }),
              "[kv_cache] expected 1 free pages of the pool's 3, found 0");
    EXPECT_EQ(cache.length(a), 21);
    cache.free_sequence(b);
    EXPECT_EQ(cache.free_pages(), 1);
    cache.append(std::vector{a}, many, many);
    EXPECT_EQ(cache.length(a), 37);
    EXPECT_THROW(cache.append(std::vector{b}, many, many), ValueError);
    EXPECT_EQ(cache.add_sequence(), b);
}

// Sequences that are not named keep their tokens; the others are those that a batch of their own would have.
/// What a paged cache holds, as attention sees it: tokens of sequence after sequence.
std::vector<double> held(const PagedKvCache& cache, std::span<const std::int64_t> sequences) {
    const PagedKvCacheOptions& options = cache.options();
    std::vector<double> numbers;
    for (const std::int64_t sequence : sequences) {
        for (std::int64_t slot = 0; slot < cache.length(sequence); ++slot) {
            const std::int64_t page = cache.block_table(sequence)[static_cast<std::size_t>(slot / options.page_size)];
            for (std::int64_t head = 0; head < options.kv_heads; ++head) {
                for (const Tensor* rows : {&cache.keys(), &cache.values()}) {
                    numbers.push_back(rows->view().item({page, head, slot % options.page_size, options.head_dim - 1}));
                }
            }
        }
    }
    return numbers;
}

// Appends that are large enough to be shared by threads, to sequences that share their last pages: copies of those
// pages come before anything is written into them.
TEST(PagedKvCache, ThreadsWriteTheSame) {
    for (const DType dtype : {DType::float32, DType::int8}) {
        std::vector<std::vector<double>> found;
        for (const int threads : {1, 3}) {
            set_num_threads(threads);
            PagedKvCache cache({.kv_heads = 8, .head_dim = 64, .pages = 4, .dtype = dtype});
            std::vector<std::int64_t> sequences;
            for (int s = 0; s < 12; ++s) sequences.push_back(cache.add_sequence());
            const Tensor prompt = normal({12, 8, 21, 64}, 5);
            cache.append(sequences, prompt, prompt);
            for (int s = 0; s < 36; ++s) sequences.push_back(cache.fork(sequences[static_cast<std::size_t>(s % 12)]));
            for (std::int64_t s = 0; s < 48; s += 5) {
                cache.truncate(sequences[static_cast<std::size_t>(s)], 18 + s % 3);
            }
            const Tensor key = normal({48, 8, 1, 64}, 6);
            const Tensor value = normal({48, 8, 1, 64}, 7);
            for (int step = 0; step < 3; ++step) cache.append(sequences, key, value);
            found.push_back(held(cache, sequences));

            KvCache whole({.batch = 48, .kv_heads = 8, .head_dim = 64, .capacity = 1, .dtype = dtype});
            for (int step = 0; step < 3; ++step) whole.append(normal({48, 8, 5, 64}, 8), normal({48, 8, 5, 64}, 9));
            std::vector<double> rows;
            for (std::int64_t s = 0; s < 48; ++s) {
                rows.push_back(whole.keys().view().item({s, 7, whole.length(s) - 1, 63}));
                rows.push_back(whole.values().view().item({s, s % 8, s % 15, s}));
            }
            found.push_back(std::move(rows));
        }
        set_num_threads(0);
        EXPECT_EQ(found[0], found[2]) << name_of(dtype);
        EXPECT_EQ(found[1], found[3]) << name_of(dtype);
        // A sequence alone, without pages that others have.
        PagedKvCache alone({.kv_heads = 8, .head_dim = 64, .dtype = dtype});
        const std::int64_t sequence[] = {alone.add_sequence()};
        alone.append(sequence, normal({12, 8, 21, 64}, 5).view().slice(0, 5, 6),
                     normal({12, 8, 21, 64}, 5).view().slice(0, 5, 6));
        alone.truncate(sequence[0], 18 + 5 % 3);
        for (int step = 0; step < 3; ++step) {
            alone.append(sequence, normal({48, 8, 1, 64}, 6).view().slice(0, 5, 6),
                         normal({48, 8, 1, 64}, 7).view().slice(0, 5, 6));
        }
        const std::vector<double> want = held(alone, sequence);
        std::size_t begin = 0;  // of sequence 5 among those before it: sequence 0 was cut as well
        for (const std::int64_t s : {0, 1, 2, 3, 4}) begin += static_cast<std::size_t>((s == 0 ? 21 : 24) * 16);
        EXPECT_EQ(std::vector<double>(found[0].begin() + static_cast<std::ptrdiff_t>(begin),
                                      found[0].begin() + static_cast<std::ptrdiff_t>(begin + want.size())),
                  want);
    }
}

TEST(KvCache, AppendsToSomeSequences) {
    for (const DType dtype : {DType::float32, DType::int8}) {
        const Tensor k = normal({3, 2, 5, 8}, 1);
        const Tensor v = normal({3, 2, 5, 6}, 2);
        const Tensor more_k = normal({2, 2, 4, 8}, 3);
        const Tensor more_v = normal({2, 2, 4, 6}, 4);
        const Tensor q = normal({3, 4, 1, 8}, 5);
        const KvCacheOptions sizes{
            .batch = 3, .kv_heads = 2, .head_dim = 8, .value_dim = 6, .capacity = 5, .dtype = dtype};
        KvCache cache(sizes);
        cache.append(k, v);
        cache.append(std::vector<std::int64_t>{2, 0}, more_k, more_v);
        EXPECT_EQ(cache.length(0), 9);
        EXPECT_EQ(cache.length(1), 5);
        EXPECT_EQ(cache.length(2), 9);
        // The same by counts, with tokens for the sequence that gets none.
        Tensor fed_k = Tensor::empty({3, 2, 4, 8});
        Tensor fed_v = Tensor::empty({3, 2, 4, 6});
        poison(fed_k);
        poison(fed_v);
        for (const auto& [row, sequence] : {std::pair(0, 2), std::pair(1, 0)}) {
            fed_k.view().select(0, sequence).copy_from(more_k.view().select(0, row));
            fed_v.view().select(0, sequence).copy_from(more_v.view().select(0, row));
        }
        KvCache counted(sizes);
        counted.append(k, v);
        counted.append(fed_k, fed_v, std::vector<std::int64_t>{4, 0, 4});
        EXPECT_TRUE(same_bits(attention(q, cache).output, attention(q, counted).output));

        cache.append(std::span<const std::int64_t>(), normal({0, 2, 4, 8}, 1), normal({0, 2, 4, 6}, 1));
        const auto append = [&](const std::vector<std::int64_t>& sequences) {
            cache.append(sequences, more_k, more_v);
        };
        EXPECT_EQ(message_of<ValueError>([&] { append({0, 3}); }), "[kv_cache] expected a sequence in [0, 3), found 3");
        EXPECT_EQ(message_of<ValueError>([&] {
                      append({1, 1});
                  }),
                  "[kv_cache] expected each sequence once, found 1 again");
        EXPECT_EQ(message_of<ShapeError>([&] { append({1}); }),
                  "[kv_cache] expected key of shape [1, 2, *, 8], found [2, 2, 4, 8]");
        EXPECT_EQ(cache.length(0), 9);
        EXPECT_EQ(cache.length(1), 5);
    }
}

// The pages of a cache, and the same in another layout and with one page for each sequence.
TEST(PagedView, SameBitsAsTheCacheThatItShows) {
    PagedKvCache cache({.kv_heads = 2, .head_dim = 8, .page_size = 16, .pages = 8});
    const std::vector<std::int64_t> sequences = {cache.add_sequence(), cache.add_sequence()};
    cache.append(sequences, normal({2, 2, 37, 8}, 1), normal({2, 2, 37, 8}, 2));
    cache.append(std::span(sequences).first(1), normal({1, 2, 9, 8}, 3), normal({1, 2, 9, 8}, 4));
    cache.set_left_padding(sequences[1], 5);
    PagedView view{cache.keys().view(),
                   cache.values().view(),
                   {cache.block_table(sequences[0]), cache.block_table(sequences[1])},
                   {46, 37},
                   {0, 5}};
    const Tensor other_keys = cache.keys().view().transpose(1, 2).clone();
    const Tensor other_values = cache.values().view().transpose(1, 2).clone();
    PagedView transposed = view;
    transposed.keys = other_keys.view().transpose(1, 2);
    transposed.values = other_values.view().transpose(1, 2);
    Tensor whole_keys({2, 2, 64, 8});
    Tensor whole_values({2, 2, 64, 8});
    for (std::int64_t s = 0; s < 2; ++s) {
        for (std::int64_t p = 0; p < 3; ++p) {
            const std::int64_t page = view.block_tables[static_cast<std::size_t>(s)][static_cast<std::size_t>(p)];
            const auto part = [&](Tensor& to) { return to.view().select(0, s).slice(1, 16 * p, 16 * p + 16); };
            part(whole_keys).copy_from(view.keys.select(0, page));
            part(whole_values).copy_from(view.values.select(0, page));
        }
    }
    const PagedView whole{whole_keys.view(), whole_values.view(), {{0}, {1}}, {46, 37}, {0, 5}};
    for (const std::int64_t queries : {1, 4, 20}) {
        const Tensor q = normal({2, 4, queries, 8}, 5);
        const AttentionOptions options{.mask = Mask::causal_bottom_right()};
        const AttentionResult expected = attention(q, cache, sequences, options);
        for (const PagedView& same : {view, transposed, whole}) {
            const AttentionResult found = attention(q, same, options);
            EXPECT_TRUE(same_bits(found.output, expected.output));
            EXPECT_TRUE(same_bits(found.log_sum_exp, expected.log_sum_exp));
        }
    }
}

// Keys of float64 under a query of another type are copied, however few its rows.
TEST(PagedView, DoublesUnderFloats) {
    const Tensor keys = normal({2, 1, 16, 8}, 1);
    const Tensor values = normal({2, 1, 16, 8}, 2);
    const Tensor wide_keys = keys.to(DType::float64);
    const Tensor wide_values = values.to(DType::float64);
    for (const std::int64_t rows : {1, 4, 5}) {
        for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
            const Tensor q = normal({1, 2, rows, 8}, 3).to(dtype);
            const AttentionResult expected = attention(q.to(DType::float32), PagedView{keys, values, {{1, 0}}, {27}});
            const AttentionResult found = attention(q, PagedView{wide_keys, wide_values, {{1, 0}}, {27}});
            EXPECT_LE(row_error(found.output, expected.output), dtype == DType::float32 ? 1e-6 : 1e-2);
            EXPECT_LE(row_error(found.log_sum_exp, expected.log_sum_exp), 1e-6);
        }
    }
}

TEST(KvCache, NoQueriesOverPadding) {
    KvCache cache({.batch = 1, .kv_heads = 1, .head_dim = 8});
    cache.append(normal({1, 1, 5, 8}, 1), normal({1, 1, 5, 8}, 2));
    cache.set_left_padding(0, 2);
    const Tensor bias({1, 1, 0, 5});
    AttentionOptions options;
    options.bias = bias.view();
    EXPECT_EQ(attention(Tensor({1, 1, 0, 8}), cache, options).output.shape(), Shape({1, 1, 0, 8}));
}

TEST(PagedView, RefusesWhatIsNotThere) {
    const Tensor rows = normal({3, 1, 16, 8}, 1);
    const Tensor q = normal({1, 1, 1, 8}, 2);
    const auto attended = [&](const PagedView& view) { static_cast<void>(attention(q, view)); };
    EXPECT_EQ(message_of<ValueError>([&] {
                  attended({rows, rows, {{0, 3}}, {17}});
              }),
              "[attention] expected pages in [0, 3), found 3");
    EXPECT_THROW((attended({rows, rows, {{0, 1}}, {33}})), ValueError);
    EXPECT_THROW((attended({rows, rows, {{0, 1}}, {3}, {4}})), ValueError);
    EXPECT_THROW((attended({rows, rows, {{0}, {1}}, {3}})), ShapeError);
    EXPECT_THROW((attended({rows, rows.to(DType::bfloat16), {{0}}, {3}})), DTypeError);
    const TensorView turned = rows.view().transpose(2, 3);
    EXPECT_THROW((attended({turned, turned, {{0}}, {3}})), ShapeError);
}

TEST(PagedKvCache, TruncateGivesPagesBack) {
    const Tensor k = normal({1, 1, 40, 8}, 1);
    const Tensor v = normal({1, 1, 40, 8}, 2);
    const Tensor other_k = normal({1, 1, 10, 8}, 3);
    const Tensor other_v = normal({1, 1, 10, 8}, 4);
    const Tensor q = normal({1, 1, 1, 8}, 5);
    PagedKvCache cache({.kv_heads = 1, .head_dim = 8, .page_size = 16, .pages = 5, .grows = false});
    const auto expect_tokens = [&](std::int64_t sequence, std::int64_t first, bool others) {
        KvCache want({.batch = 1, .kv_heads = 1, .head_dim = 8});
        want.append(k.view().slice(2, 0, first), v.view().slice(2, 0, first));
        if (others) want.append(other_k, other_v);
        EXPECT_EQ(cache.length(sequence), want.length(0));
        EXPECT_TRUE(same_bits(attention(q, cache, std::vector{sequence}).output, attention(q, want).output));
    };
    const std::int64_t a = cache.add_sequence();
    cache.append(std::vector{a}, k, v);
    const std::int64_t b = cache.fork(a);
    EXPECT_EQ(cache.free_pages(), 2);

    // Pages that the fork has as well stay; the last that is kept is shared, and copied when it is written to.
    cache.truncate(a, 20);
    EXPECT_EQ(cache.free_pages(), 2);
    EXPECT_EQ(cache.block_table(a).size(), 2U);
    cache.append(std::vector{a}, other_k, other_v);
    EXPECT_EQ(cache.free_pages(), 1);
    EXPECT_EQ(cache.block_table(a)[0], cache.block_table(b)[0]);
    EXPECT_NE(cache.block_table(a)[1], cache.block_table(b)[1]);
    expect_tokens(a, 20, true);
    expect_tokens(b, 40, false);

    // What nobody else has comes back: a page that ends where the sequence does is kept, one behind it is not.
    cache.truncate(b, 32);
    EXPECT_EQ(cache.free_pages(), 2);
    cache.truncate(b, 16);
    EXPECT_EQ(cache.free_pages(), 3);
    expect_tokens(b, 16, false);
    cache.append(std::vector{b}, other_k, other_v);
    EXPECT_EQ(cache.free_pages(), 2);
    expect_tokens(b, 16, true);
    expect_tokens(a, 20, true);

    // Both at once, from different places of the page that they share.
    cache.free_sequence(b);
    const std::int64_t c = cache.fork(a);
    cache.truncate(c, 18);
    cache.append(std::vector{c}, other_k, other_v);
    expect_tokens(c, 18, true);
    expect_tokens(a, 20, true);

    cache.set_left_padding(a, 10);
    cache.truncate(a, 4);
    EXPECT_EQ(cache.left_padding(a), 4);
    cache.truncate(a, 0);
    EXPECT_TRUE(cache.block_table(a).empty());
    EXPECT_EQ(message_of<ValueError>([&] { cache.truncate(c, 29); }),
              "[kv_cache] expected a length in [0, 28], found 29");
    EXPECT_EQ(message_of<ValueError>([&] { cache.truncate(c, -1); }),
              "[kv_cache] expected a length in [0, 28], found -1");
    EXPECT_THROW(cache.truncate(2, 0), ValueError);
    cache.free_sequence(a);
    cache.free_sequence(c);
    EXPECT_EQ(cache.free_pages(), 5);
}

// Memory that a growing cache leaves is read until all of it is copied.
TEST(KvCache, AppendsItsOwnTokens) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const Tensor k = normal({1, 2, 32, 8}, 1, dtype);
        const Tensor v = normal({1, 2, 32, 8}, 2, dtype);
        KvCache cache({.kv_heads = 2, .head_dim = 8, .capacity = 32, .dtype = dtype});
        cache.append(k, v);
        cache.append(cache.keys(), cache.values());
        EXPECT_TRUE(same_bits(cache.keys().view().slice(2, 32, 64).clone(), k));
        EXPECT_TRUE(same_bits(cache.values().view().slice(2, 32, 64).clone(), v));
        PagedKvCache paged({.kv_heads = 2, .head_dim = 8, .page_size = 32, .pages = 1, .dtype = dtype});
        const std::vector<std::int64_t> sequence = {paged.add_sequence()};
        paged.append(sequence, k, v);
        paged.append(sequence, paged.keys(), paged.values());
        EXPECT_TRUE(same_bits(paged.keys().view().slice(0, 1, 2).clone(), k));
        EXPECT_TRUE(same_bits(paged.values().view().slice(0, 1, 2).clone(), v));
    }
}

TEST(KvCache, IsEmptyWhenItWasMovedFrom) {
    const Tensor k = normal({1, 2, 3, 8}, 1);
    KvCache cache({.kv_heads = 2, .head_dim = 8, .dtype = DType::int8});
    cache.append(k, k);
    KvCache taken = std::move(cache);
    EXPECT_EQ(taken.length(0), 3);
    // NOLINTBEGIN(bugprone-use-after-move)
    EXPECT_EQ(cache.options().batch, 0);
    EXPECT_THROW(static_cast<void>(cache.length(0)), ValueError);
    EXPECT_THROW(cache.append(k, k), ShapeError);
    EXPECT_THROW(attention(Tensor({0, 2, 1, 8}), cache), ShapeError);
    EXPECT_EQ(cache.contents().keys.numel(), 0);
    cache = std::move(taken);
    EXPECT_EQ(cache.length(0), 3);
    PagedKvCache paged({.kv_heads = 2, .head_dim = 8, .pages = 4});
    const std::vector<std::int64_t> sequence = {paged.add_sequence()};
    paged.append(sequence, k, k);
    PagedKvCache moved = std::move(paged);
    EXPECT_EQ(moved.length(sequence[0]), 3);
    EXPECT_EQ(paged.options().pages, 0);
    EXPECT_EQ(paged.add_sequence(), 0);
    EXPECT_THROW(paged.append(sequence, k, k), ShapeError);
    // NOLINTEND(bugprone-use-after-move)
}

// Nothing has no address to count from.
TEST(KvCache, HoldsNothing) {
    const std::vector<std::int64_t> second = {1};
    KvCache cache({.batch = 2, .kv_heads = 1, .head_dim = 4});
    for (const std::int64_t queries : {1, 5}) {
        const AttentionResult none = attention(normal({2, 1, queries, 4}, 1), cache, {.return_weights = true});
        EXPECT_TRUE(same_bits(none.output, zeros({2, 1, queries, 4})));
        EXPECT_EQ(none.weights.numel(), 0);
    }
    KvCache flat({.batch = 2, .kv_heads = 2, .head_dim = 0});
    flat.append(Tensor({2, 2, 3, 0}), Tensor({2, 2, 3, 0}));
    EXPECT_EQ(attention(Tensor({2, 2, 1, 0}), flat).output.numel(), 0);
    flat.reorder(second);
    EXPECT_EQ(flat.length(0), 3);
    PagedKvCache paged({.head_dim = 0});
    const std::vector<std::int64_t> sequences = {paged.add_sequence(), paged.add_sequence()};
    paged.append(sequences, Tensor({2, 1, 3, 0}), Tensor({2, 1, 3, 0}));
    const std::vector<std::int64_t> fork = {paged.fork(sequences[0])};
    paged.append(fork, Tensor({1, 1, 3, 0}), Tensor({1, 1, 3, 0}));
    EXPECT_EQ(attention(Tensor({2, 1, 1, 0}), paged, sequences).output.numel(), 0);
    const Tensor values = normal({2, 2, 5, 3}, 3);
    const Tensor mean = attention(Tensor({2, 2, 3, 0}), Tensor({2, 2, 5, 0}), values).output;
    EXPECT_LE(row_error(mean, attention(zeros({2, 2, 3, 1}), zeros({2, 2, 5, 1}), values).output), 1e-6);
    EXPECT_EQ(attention(normal({2, 2, 3, 4}, 4), normal({2, 2, 5, 4}, 5), Tensor({2, 2, 5, 0})).output.numel(), 0);
    EXPECT_EQ(Tensor({2, 3, 0}).view().select(1, 1).numel(), 0);
    LinearAttentionState state(2, 1, 0, 4);
    state.step(Tensor({2, 1, 1, 0}), Tensor({2, 1, 1, 0}), normal({2, 1, 1, 4}, 6), {.feature_map = FeatureMap::relu});
    state.reorder(second);
    linear_attention_with_state(Tensor({2, 2, 3, 0}), Tensor({2, 1, 3, 0}), normal({2, 1, 3, 4}, 7),
                                {.feature_map = FeatureMap::relu, .normalise = true, .causal = true});
}

TEST(KvCache, Errors) {
    EXPECT_EQ(message_of<DTypeError>([] { KvCache({.dtype = DType::int64}); }),
              "[kv_cache] expected a dtype of float32, bfloat16, float16 or int8, found int64");
    EXPECT_EQ(message_of<ValueError>([] { PagedKvCache({.page_size = 24}); }),
              "[kv_cache] expected a page size that is a multiple of 16, found 24");
    KvCache cache({.batch = 1, .kv_heads = 2, .head_dim = 8});
    const Tensor wrong = normal({1, 1, 3, 8}, 1);
    EXPECT_EQ(message_of<ShapeError>([&] { cache.append(wrong, wrong); }),
              "[kv_cache] expected key of shape [1, 2, *, 8], found [1, 1, 3, 8]");
    const Tensor tokens = normal({1, 2, 3, 8}, 1);
    EXPECT_THROW(cache.append(tokens, tokens, std::vector<std::int64_t>{4}), ValueError);
    cache.append(tokens, tokens);
    EXPECT_THROW(cache.set_left_padding(0, 4), ValueError);
    EXPECT_THROW(cache.truncate(0, 4), ValueError);
    EXPECT_THROW(static_cast<void>(cache.length(1)), ValueError);
    EXPECT_EQ(message_of<ShapeError>([&] {
                  attention(normal({1, 2, 1, 9}, 1), cache);
              }),
              "[attention] expected query of shape [1, heads, length, 8], found [1, 2, 1, 9]");
    for (const std::int64_t queries : {1, 3, 9}) {
        const Tensor q = normal({1, 2, queries, 8}, 1);
        EXPECT_EQ(message_of<ValueError>([&] {
                      attention(q, cache, {.mask = Mask::packed({0, 1, 3})});
                  }),
                  "[attention] expected a mask without packed sequences for a cache, which keeps its sequences apart, "
                  "found Mask::packed");
        EXPECT_EQ(message_of<ValueError>([&] { attention(q, cache, {.mask = Mask::key_lengths({3})}); }),
                  "[attention] expected a mask without key lengths for a cache, which knows its own, found "
                  "Mask::key_lengths");
    }
}

}  // namespace
}  // namespace attend::testing
