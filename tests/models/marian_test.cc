// Networks of Marian's files against NumPy's values (scripts/make_marian_goldens.py), and what is refused.
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"
#include "tests/support/marian_files.h"

#include <attend/core/error.h>
#include <attend/io/file.h>
#include <attend/io/marian_shortlist.h>
#include <attend/models/marian.h>
#include <attend/tasks/translator.h>

#include <gtest/gtest.h>

#include <sys/stat.h>
#include <algorithm>
#include <cmath>
#include <cstring>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

using models::ComputeType;

// To NumPy's values in float64, relative to a row's largest: float32 sums of at most 40 terms through eight norms. int8
// has the same bound: the sentences were chosen so that no a * x is within 5e-5 of a border of rounding (a norm's
// output of at most 4, as 127 steps, is off by 32 * 1e-6), so both round the same way, and the integers' sums are
// exact.
constexpr double kBound = 1e-5;

const char* name_of(ComputeType type) {
    return type == ComputeType::int8 ? "int8" : "float32";
}

/// Decoder rows through the output layer, for the steps of `ids`.
Tensor logits_of(const nn::EncoderDecoder& model, const nn::Linear& output, const std::vector<std::int64_t>& source,
                 const std::vector<std::int64_t>& ids) {
    const std::vector<std::int64_t> starts = {0, static_cast<std::int64_t>(source.size())};
    nn::DecoderState state = model.start(model.encode(source, starts), starts);
    const auto steps = static_cast<std::int64_t>(ids.size());
    Tensor all({steps, output.out_features()});
    std::int64_t previous = -1;
    for (std::int64_t t = 0; t < steps; ++t) {
        const Tensor rows = model.step(state, {&previous, 1});
        const Tensor logits = output.forward(rows);
        std::copy_n(logits.data<float>(), logits.numel(), all.data<float>() + t * output.out_features());
        previous = ids[static_cast<std::size_t>(t)];
    }
    return all;
}

class MarianOnIsa : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, MarianOnIsa, each_isa(), isa_of_test);

TEST_P(MarianOnIsa, RowsAndLogitsEqualNumPys) {
    for (const std::string name : {"tiny", "split"}) {
        const SmallModel small(name);
        const auto file = std::make_shared<const MarianFile>(MarianFile::open(small.model));
        const MarianShortlist lexical = MarianShortlist::open(small.lexical);
        EXPECT_EQ(models::has_shared_vocabulary(*file), small.shared);
        for (const ComputeType type : {ComputeType::float32, ComputeType::int8}) {
            const nn::EncoderDecoder model = models::load_marian(file, type);
            const std::string kind = name_of(type);
            for (std::size_t i = 0; i < small.sentences(); ++i) {
                SCOPED_TRACE(name + " " + kind + " '" + small.text(i) + "'");
                const std::vector<std::int64_t> source = small.ids(i, "source");
                const Tensor rows = model.encode(source, {0, static_cast<std::int64_t>(source.size())});
                const Tensor want = small.golden(i, kind + ".encoder");
                EXPECT_LE(row_error(rows.view().reshape(want.shape()), want), kBound);
                EXPECT_LE(row_error(logits_of(model, model.output(), source, small.ids(i, kind + ".full.ids")),
                                    small.golden(i, kind + ".full.logits")),
                          kBound);
                const std::vector<std::int64_t> candidates =
                    lexical.candidates(source, small.shared, model.target_size());
                EXPECT_EQ(candidates, small.ids(i, "candidates"));
                EXPECT_LE(row_error(logits_of(model, model.output().select(candidates), source,
                                              small.ids(i, kind + ".short.ids")),
                                    small.golden(i, kind + ".short.logits")),
                          kBound);
            }
        }
    }
}

TEST_P(MarianOnIsa, TranslationsEqualNumPys) {
    for (const std::string name : {"tiny", "split"}) {
        const SmallModel small(name);
        for (const ComputeType type : {ComputeType::float32, ComputeType::int8}) {
            for (const bool shortlist : {false, true}) {
                const Translator translator =
                    Translator::from_pretrained(small.folder, {.compute_type = type, .shortlist = shortlist});
                const std::vector<Translation> found = translator.translate(small.texts());
                ASSERT_EQ(found.size(), small.sentences());
                for (std::size_t i = 0; i < found.size(); ++i) {
                    SCOPED_TRACE(name + " " + name_of(type) + " '" + small.text(i) + "'");
                    EXPECT_EQ(translator.encode(small.text(i)), small.ids(i, "source"));
                    EXPECT_EQ(found[i].ids,
                              small.ids(i, std::string(name_of(type)) + (shortlist ? ".short.ids" : ".full.ids")));
                    if (type == ComputeType::int8 && !shortlist) {
                        EXPECT_EQ(found[i].text, small.translation(i));
                    }
                }
            }
        }
    }
}

// bfloat16 rounds to 8 bits: rows differ from float32's by some of 1/256, and not by more.
TEST_P(MarianOnIsa, BFloat16IsNearFloat32) {
    const SmallModel small("tiny");
    const auto file = std::make_shared<const MarianFile>(MarianFile::open(small.model));
    const nn::EncoderDecoder model = models::load_marian(file, ComputeType::bfloat16);
    for (std::size_t i = 0; i < small.sentences(); ++i) {
        const std::vector<std::int64_t> source = small.ids(i, "source");
        const Tensor rows = model.encode(source, {0, static_cast<std::int64_t>(source.size())});
        const Tensor want = small.golden(i, "float32.encoder");
        const double error = row_error(rows.view().reshape(want.shape()), want);
        EXPECT_LE(error, 0.05);
        EXPECT_GT(error, 1e-5);
    }
}

/// A tensor of an item, all of one number.
void fill(MarianItem& item, float value) {
    for (std::size_t at = 0; at + sizeof value <= item.data.size(); at += sizeof value) {
        std::memcpy(item.data.data() + at, &value, sizeof value);
    }
}

// The norms' epsilon is 1e-6, neither Marian's default of 1e-9 nor PyTorch's: a row of variance 1e-6 has 1/2 behind a
// norm.
TEST_P(MarianOnIsa, NormsHaveAnEpsilonOfAMillionth) {
    const SmallModel small("tiny");
    MarianItems items = read_items(read_file(small.model));
    fill(items.at("encoder_l2_self_Wo_ln_scale"), 1e-3F);
    fill(items.at("encoder_l2_self_Wo_ln_bias"), 0.0F);
    MarianItem& contract = items.at("encoder_l2_ffn_W2");
    std::fill_n(contract.data.begin(), contract.shape[0] * contract.shape[1], '\0');
    fill(items.at("encoder_l2_ffn_b2"), 0.0F);
    fill(items.at("encoder_l2_ffn_ffn_ln_scale"), 1.0F);
    fill(items.at("encoder_l2_ffn_ffn_ln_bias"), 0.0F);
    const auto file = std::make_shared<const MarianFile>(MarianFile::from_bytes(written_items(items), "m.bin"));
    const Tensor rows =
        models::load_marian(file, ComputeType::float32).encode(std::vector<std::int64_t>{5, 9, 0}, {0, 3});
    for (std::int64_t r = 0; r < 3; ++r) {
        double squares = 0.0;
        for (std::int64_t c = 0; c < rows.size(2); ++c) squares += rows.item({0, r, c}) * rows.item({0, r, c});
        EXPECT_NEAR(squares / static_cast<double>(rows.size(2)), 0.5, 1e-4);
    }
}

/// Ids and the bits of the score.
void expect_same(const Translation& found, const Translation& want) {
    EXPECT_EQ(found.ids, want.ids);
    EXPECT_EQ(found.text, want.text);
    EXPECT_EQ(found.score, want.score);
}

// Alone and in every batch, for any number of threads: the same pieces and the same bits of the score.
TEST_P(MarianOnIsa, BatchesAndThreadsChangeNoBit) {
    const SmallModel small("tiny");
    std::vector<std::string> texts = small.texts();
    for (const char* more : {"the cat sits on the bridge and looks down.", "", "rain", "an island lies in the river.",
                             "the old man rows the boat over the river; nobody knows.", "a", "the cat"}) {
        texts.emplace_back(more);
    }
    for (const ComputeType type : {ComputeType::float32, ComputeType::bfloat16, ComputeType::int8}) {
        for (const bool shortlist : {false, true}) {
            const Translator translator =
                Translator::from_pretrained(small.folder, {.compute_type = type, .shortlist = shortlist});
            set_num_threads(1);
            std::vector<Translation> alone;
            std::vector<std::size_t> lengths;
            for (const std::string& text : texts) {
                alone.push_back(translator.translate({text}, {.scores = true}).front());
                lengths.push_back(alone.back().ids.size());
            }
            std::sort(lengths.begin(), lengths.end());
            EXPECT_NE(lengths.front(), lengths.back()) << "sentences must end at different lengths";
            for (const int threads : {1, 2, 3}) {
                set_num_threads(threads);
                for (const std::int64_t tokens : {1, 9, 30, 100000}) {
                    const std::vector<Translation> all =
                        translator.translate(texts, {.batch_tokens = tokens, .scores = true});
                    ASSERT_EQ(all.size(), texts.size());
                    for (std::size_t i = 0; i < texts.size(); ++i) {
                        SCOPED_TRACE("'" + texts[i] + "', " + std::to_string(threads) + " threads, batches of " +
                                     std::to_string(tokens));
                        expect_same(all[i], alone[i]);
                    }
                }
            }
        }
    }
}

TEST(Translator, BytesThatAreNoUtf8AreRefusedInSentences) {
    const SmallModel small("tiny");
    const Translator translator = Translator::from_pretrained(small.folder);
    try {
        translator.translate({"a cat", "a c\xC3 t"});
        FAIL() << "no exception";
    } catch (const ValueError& error) {
        EXPECT_STREQ(error.what(), "[Translator] expected UTF-8, found other bytes in source 1 from byte 3 on");
    }
    for (const char* wrong : {"\xFF", "\xC3", "a\xED\xA0\x80", "\xF5\x80\x80\x80", "\xC0\x80"}) {
        EXPECT_THROW(translator.translate(wrong), ValueError);
    }
    for (const char* right : {"\u00e9", "\u4e2d", "\U0001F600", "\uFFFD"}) EXPECT_NO_THROW(translator.translate(right));
}

TEST(Translator, EmptyInputGivesEmptyOutput) {
    const Translator translator = Translator::from_pretrained(SmallModel("tiny").folder);
    EXPECT_TRUE(translator.translate({}).empty());
    const std::vector<Translation> found = translator.translate({"", " ", "a", "\t"}, {.scores = true});
    ASSERT_EQ(found.size(), 4U);
    EXPECT_EQ(found[0].text, "");
    EXPECT_TRUE(found[0].ids.empty());
    EXPECT_EQ(found[0].score, 0.0);
    EXPECT_EQ(found[1].text, "");
    EXPECT_FALSE(found[2].ids.empty());
    const TranslatedLines none = translator.translate_lines({});
    EXPECT_TRUE(none.lines.empty());
    EXPECT_EQ(none.words, 0);
}

TEST(Translator, StopsAtTheLongestLength) {
    const SmallModel small("tiny");
    const Translator translator = Translator::from_pretrained(small.folder, {.shortlist = false});
    for (std::size_t i = 0; i < small.sentences(); ++i) {
        const std::vector<std::int64_t> full = small.ids(i, "int8.full.ids");
        const std::size_t source = small.ids(i, "source").size();
        for (const double factor : {0.1, 0.5, 1.0, 1.3}) {
            const auto longest = static_cast<std::size_t>(std::ceil(factor * static_cast<double>(source)));
            const std::vector<std::int64_t> found =
                translator.translate({small.text(i)}, {.max_length_factor = factor}).front().ids;
            EXPECT_EQ(found,
                      std::vector<std::int64_t>(
                          full.begin(), full.begin() + static_cast<std::ptrdiff_t>(std::min(longest, full.size()))));
        }
    }
}

// A source that is longer than max_source_tokens is translated in parts, each as if it stood alone.
TEST(Translator, LongSourcesAreCut) {
    const Translator translator = Translator::from_pretrained(SmallModel("tiny").folder, {.shortlist = false});
    std::string text;
    for (int i = 0; i < 300; ++i) text += i % 3 == 0 ? "the cat rows. " : "a boat, ";
    for (const std::int64_t most : {2, 17, 128}) {
        const Translation found = translator.translate({text}, {.scores = true, .max_source_tokens = most}).front();
        const auto pieces = static_cast<std::int64_t>(translator.encode(text).size()) - 1;
        const std::int64_t parts = (pieces + most - 2) / (most - 1);
        // Each part has an end or its longest length.
        EXPECT_LE(std::count(found.ids.begin(), found.ids.end(), 0), parts);
        EXPECT_LE(static_cast<std::int64_t>(found.ids.size()), 3 * (pieces + parts));
        EXPECT_GE(static_cast<std::int64_t>(found.ids.size()), parts);
        EXPECT_LT(found.score, 0.0);
    }
    // The first part alone.
    const std::vector<std::int64_t> first = translator.translate({"the cat rows."}).front().ids;
    const auto length = static_cast<std::int64_t>(translator.encode("the cat rows.").size());
    const std::vector<std::int64_t> cut =
        translator.translate({"the cat rows. a boat"}, {.max_source_tokens = length}).front().ids;
    ASSERT_GT(cut.size(), first.size());
    EXPECT_TRUE(std::equal(first.begin(), first.end(), cut.begin()));
}

TEST(Translator, KeepsWhatIsAroundSentences) {
    const SmallModel small("tiny");
    const Translator translator = Translator::from_pretrained(small.folder);
    const std::string one = translator.translate({"the cat."}).front().text;
    const std::string two = translator.translate({"the boat"}).front().text;
    const TranslatedLines found =
        translator.translate_lines({"  - the cat. ", "", "\t", "the cat. The boat\r", "a\377b", "3) the boat"});
    EXPECT_EQ(found.lines[0].text, "  - " + one + " ");
    EXPECT_EQ(found.lines[1].text, "");
    EXPECT_EQ(found.lines[2].text, "\t");
    EXPECT_EQ(found.lines[3].text, one + " " + translator.translate({"The boat"}).front().text + "\r");
    EXPECT_EQ(found.repaired, (std::vector<std::size_t>{4}));
    EXPECT_EQ(found.lines[5].text, "3) " + two);
    EXPECT_EQ(found.words, 3 + 0 + 0 + 4 + 1 + 3);
    EXPECT_EQ(translator.source_language(), "xx");
    EXPECT_EQ(translator.pieces({0, 1}), (std::vector<std::string>{"</s>", "<unk>"}));
    EXPECT_THROW(translator.pieces({-1}), ValueError);
    EXPECT_THROW(translator.pieces({100000}), ValueError);
}

// Without stored scales each row has its own: near float32, but not the stored scales' rows.
TEST(Marian, ModelsWithoutScalesQuantiseEachRow) {
    const SmallModel small("tiny");
    MarianItems items = read_items(read_file(small.model));
    std::erase_if(items, [](const auto& entry) { return entry.first.ends_with("_QuantMultA"); });
    const auto file =
        std::make_shared<const MarianFile>(MarianFile::from_bytes(written_items(items), "model.xxyy.intgemm8.bin"));
    const nn::EncoderDecoder model = models::load_marian(file, ComputeType::int8);
    for (std::size_t i = 0; i < small.sentences(); ++i) {
        const std::vector<std::int64_t> source = small.ids(i, "source");
        const Tensor rows = model.encode(source, {0, static_cast<std::int64_t>(source.size())});
        const Tensor want = small.golden(i, "float32.encoder");
        EXPECT_LE(row_error(rows.view().reshape(want.shape()), want), 0.1);
        EXPECT_GT(row_error(rows.view().reshape(want.shape()), small.golden(i, "int8.encoder")), 1e-4);
    }
}

/// The message for a model whose items were changed.
template <typename Change>
std::string refusal(const SmallModel& small, const Change& change) {
    MarianItems items = read_items(read_file(small.model));
    change(items);
    return message_of<FileError>([&] {
        models::load_marian(std::make_shared<const MarianFile>(MarianFile::from_bytes(written_items(items), "m.bin")),
                            ComputeType::int8);
    });
}

TEST(Marian, EveryMissingTensorIsNamed) {
    for (const std::string name : {"tiny", "split"}) {
        const SmallModel small(name);
        for (const auto& [tensor, item] : read_items(read_file(small.model))) {
            if (tensor.ends_with("_QuantMultA")) continue;  // may be absent
            const std::string message =
                refusal(small, [&, &missing = tensor](MarianItems& items) { items.erase(missing); });
            // Without Wemb a file has two vocabularies.
            const std::string named = tensor == "Wemb" ? "encoder_Wemb" : tensor;
            EXPECT_NE(message.find("expected a tensor '" + named + "' in 'm.bin'"), std::string::npos) << message;
        }
    }
}

// Each tensor with one row more, one column less, and as the other type.
TEST(Marian, EveryTensorOfAnotherShapeOrTypeIsNamed) {
    for (const std::string name : {"tiny", "split"}) {
        const SmallModel small(name);
        for (const auto& [tensor, item] : read_items(read_file(small.model))) {
            if (tensor == "special:model.yml" || tensor == "Wemb_QuantMultA")
                continue;  // the latter: none_QuantMultA is read
            const std::string wanted = tensor;
            const auto named = [&](const std::string& message) {
                // A vocabulary of another size shows in its bias too, and an output bias in its vocabulary.
                return message.find("m.bin") != std::string::npos &&
                       (message.find("'" + wanted + "'") != std::string::npos ||
                        (wanted.ends_with("Wemb") && message.find("decoder_ff_logit_out_b") != std::string::npos));
            };
            for (const std::size_t d : {0U, 1U}) {
                for (const std::int32_t more : {1, -1}) {
                    if (wanted == "encoder_Wemb" && d == 0) continue;  // any number of pieces
                    const std::string message = refusal(small, [&](MarianItems& items) {
                        MarianItem& changed = items.at(wanted);
                        changed.shape[d] += more;
                        changed.data.resize(changed.data.size() + 1024);
                    });
                    EXPECT_TRUE(named(message)) << wanted << " " << d << " " << more << ": " << message;
                }
            }
            const std::string message = refusal(small, [&](MarianItems& items) {
                MarianItem& changed = items.at(wanted);
                changed.type = changed.type == 0x0404 ? 0x4102 : 0x0404;
                changed.data.resize(changed.data.size() * 5);
            });
            if (!wanted.ends_with("Wemb_QuantMultA")) {
                EXPECT_TRUE(named(message)) << wanted << ": " << message;
            }
        }
    }
}

/// The configuration with something else in it.
void replace(MarianItems& items, const std::string& from, const std::string& to) {
    MarianItem& item = items.at("special:model.yml");
    const std::size_t at = item.data.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    item.data.replace(at, from.size(), to);
    item.shape[0] = static_cast<std::int32_t>(item.data.size());
}

// transformer-guided-alignment-layer counts from 1; the last unless given.
TEST(Translator, AlignmentsComeFromTheLayerThatLearnedThem) {
    const SmallModel small("tiny");
    const auto links_of = [&](const std::string& layer) {
        const ModelCopy copy(small);
        MarianItems items = copy.items;
        if (!layer.empty()) replace(items, "ulr: false", "transformer-guided-alignment-layer: " + layer);
        copy.write(items);
        return Translator::from_pretrained(copy.folder()).translate(small.text(0), {.alignment = true}).tokens;
    };
    const Translation all = Translator::from_pretrained(small.folder).translate(small.text(0), {.attention = true});
    const auto expect = [&](const std::string& layer, std::int64_t block) {
        const std::vector<AlignmentLink> want =
            strong_links(all.attention.front().cross.view().select(0, block).select(0, 0).clone());
        const std::vector<AlignmentLink> found = links_of(layer);
        ASSERT_EQ(found.size(), want.size()) << layer;
        for (std::size_t i = 0; i < want.size(); ++i) {
            EXPECT_EQ(found[i].source, want[i].source) << layer;
            EXPECT_EQ(found[i].weight, want[i].weight) << layer;
        }
    };
    expect("", 1);
    expect("last", 1);
    expect("2", 1);
    expect("1", 0);
    EXPECT_NE(strong_links(all.attention.front().cross.view().select(0, 0).select(0, 0).clone()).size(), 0U);
}

TEST(Marian, OtherArchitecturesAreNamed) {
    const SmallModel small("tiny");
    const std::pair<const char*, const char*> changes[] = {
        {"type: transformer", "type: s2s"},
        {"transformer-decoder-autoreg: rnn", "transformer-decoder-autoreg: self-attention"},
        {"dec-cell: ssru", "dec-cell: gru"},
        {"transformer-preprocess: \"\"", "transformer-preprocess: n"},
        {"transformer-postprocess: dan", "transformer-postprocess: da"},
        {"transformer-postprocess-top: \"\"", "transformer-postprocess-top: n"},
        {"transformer-postprocess-emb: d", "transformer-postprocess-emb: n"},
        {"transformer-ffn-activation: relu", "transformer-ffn-activation: swish"},
        {"transformer-ffn-depth: 2", "transformer-ffn-depth: 3"},
        {"transformer-train-position-embeddings: false", "transformer-train-position-embeddings: true"},
        {"transformer-no-projection: false", "transformer-no-projection: true"},
        {"output-omit-bias: false", "output-omit-bias: true"},
        {"lemma-dim-emb: 0", "lemma-dim-emb: 64"},
        {"ulr: false", "ulr: true"},
        {"ulr: false", "transformer-guided-alignment-layer: 3"},
        {"ulr: false", "transformer-guided-alignment-layer: 0"},
        {"ulr: false", "transformer-guided-alignment-layer: first"},
        {"ulr: false", "transformer-tied-layers: [1, 1]"},
        {"ulr: false", "transformer-decoder-ffn-depth: 1"},
        {"ulr: false", "transformer-decoder-dim-ffn: 16"},
        {"ulr: false", "transformer-no-bias: true"},
        {"transformer-dim-ffn: 40", "transformer-dim-ffn: 48"},
        {"right-left: false", "right-left: true"},
        {"dim-emb: 24", "dim-emb: many"},
        {"dim-emb: 24", "dim-emb: 0"},
        {"dim-emb: 24", "dim-emb: 32"},
        {"dim-emb: 24", "dim-emb: 99999999999999999999"},
        {"transformer-heads: 2", "transformer-heads: -2"},
        {"transformer-heads: 2", "transformer-heads: 7"},
        {"enc-depth: 2", "enc-depth: 3"},
        {"dec-depth: 2", "dec-depth: 2000000000"},
        {"enc-depth: 2", "enc-depth: 1"},
        {"dec-depth: 2", "dec-depth: 1"},
        {"dim-emb: 24", "dim-emb: 4000000"},
        {"  - 96\n  - 96", "  - 95\n  - 96"},
        {"  - 96\n  - 96", "  - 96\n  - x"},
        {"type: transformer", "type: [transformer"},
        {"type: transformer", "- transformer"},
    };
    for (const auto& [from, to] : changes) {
        const std::string message =
            refusal(small, [&, from = from, to = to](MarianItems& items) { replace(items, from, to); });
        EXPECT_NE(message.find("m.bin"), std::string::npos) << to << ": " << message;
        EXPECT_EQ(message.find("another exception"), std::string::npos) << to << ": " << message;
    }
    EXPECT_EQ(refusal(small, [](MarianItems& items) { replace(items, "dec-cell: ssru", "dec-cell: gru"); }),
              "[load_marian] expected 'dec-cell' to be 'ssru' in the configuration of 'm.bin', found 'gru'");
}

TEST(Translator, FoldersThatDoNotFitAreNamed) {
    const SmallModel small("tiny");
    const auto message = [](const std::string& folder) {
        return message_of<FileError>([&] { Translator::from_pretrained(folder); });
    };
    EXPECT_EQ(message("/nowhere/en-pt"), "[Translator] expected a folder with a model, found none at '/nowhere/en-pt'");
    {
        const TemporaryFolder empty;
        EXPECT_EQ(message(empty.path("")),
                  "[Translator] expected a file model*.bin in '" + empty.path("") + "', found none");
    }
    {
        const ModelCopy copy(small);
        std::filesystem::remove(copy.path("vocab.xxyy.spm"));
        EXPECT_EQ(message(copy.folder()),
                  "[Translator] expected a file vocab*.spm in '" + copy.folder() + "', found none");
        write_file(copy.path("vocab.xxyy.spm"), "no model");
        EXPECT_EQ(message(copy.folder()), "[Tokenizer] expected a SentencePiece model in '" +
                                              copy.path("vocab.xxyy.spm") + "', found other bytes");
        write_file(copy.path("vocab.xxyy.spm"), "");
        EXPECT_EQ(message(copy.folder()), "[Tokenizer] expected a SentencePiece model in '" +
                                              copy.path("vocab.xxyy.spm") + "', found other bytes");
    }
    {
        const ModelCopy copy(small);
        write_file(copy.path("model.other.bin"), "x");
        EXPECT_NE(message(copy.folder()).find("expected one file model*.bin"), std::string::npos);
    }
    {
        const ModelCopy copy(small);
        write_file(copy.path("lex.50.50.xxyy.s2t.bin"), "x");
        EXPECT_NE(message(copy.folder()).find("expected a binary shortlist in '"), std::string::npos);
        std::filesystem::remove(copy.path("lex.50.50.xxyy.s2t.bin"));
        EXPECT_FALSE(Translator::from_pretrained(copy.folder()).translate({"the cat"}).front().ids.empty());
    }
    {
        // A vocabulary of 96 pieces and weights for 88.
        const ModelCopy copy(small);
        MarianItems items = copy.items;
        items.at("Wemb").shape[0] = 88;
        items.at("Wemb").data.erase(0, 8 * 24);
        items.at("decoder_ff_logit_out_b").shape[1] = 88;
        replace(items, "  - 96\n  - 96", "  - 88\n  - 88");
        copy.write(items);
        EXPECT_EQ(message(copy.folder()), "[Translator] expected at most 88 pieces, the rows of 'Wemb' in '" +
                                              copy.path("model.xxyy.intgemm.alphas.bin") + "', in '" +
                                              copy.path("vocab.xxyy.spm") + "', found 96");
    }
    {
        // A shortlist for another vocabulary, of 72 pieces.
        const ModelCopy copy(small);
        std::filesystem::copy_file(SmallModel("split").lexical, copy.path("lex.50.50.xxyy.s2t.bin"),
                                   std::filesystem::copy_options::overwrite_existing);
        EXPECT_EQ(message(copy.folder()), "[Translator] expected a shortlist of the 96 pieces of '" +
                                              copy.path("vocab.xxyy.spm") + "' in '" +
                                              copy.path("lex.50.50.xxyy.s2t.bin") + "', found one of 72");
        EXPECT_NO_THROW(Translator::from_pretrained(copy.folder(), {.shortlist = false}));
    }
}

TEST(Translator, LayersThatTheConfigurationLeavesOutAreNamed) {
    EXPECT_EQ(refusal(SmallModel("tiny"), [](MarianItems& items) { replace(items, "dec-depth: 2", "dec-depth: 1"); })
                  .find("[load_marian] expected tensors 'decoder_lN' of the 1 layers in the configuration of 'm.bin', "
                        "found 'decoder_l2_"),
              0U);
}

TEST(Translator, FilesOfOtherLanguagesAreNamed) {
    const SmallModel small("tiny");
    for (const auto& [from, to] : {std::pair("lex.50.50.xxyy.s2t.bin", "lex.50.50.yyxx.s2t.bin"),
                                   std::pair("vocab.xxyy.spm", "vocab.aabb.spm")}) {
        const ModelCopy copy(small);
        std::filesystem::rename(copy.path(from), copy.path(to));
        EXPECT_EQ(message_of<FileError>([&] { Translator::from_pretrained(copy.folder()); }),
                  "[Translator] expected a file for 'xxyy', as '" + copy.path("model.xxyy.intgemm.alphas.bin") +
                      "' is, found '" + copy.path(to) + "'");
        // A name that does not tell is fine.
        std::filesystem::rename(copy.path(to),
                                copy.path(std::string(from).substr(0, 3) + (from[0] == 'l' ? ".bin" : "ab.spm")));
        EXPECT_EQ(Translator::from_pretrained(copy.folder()).target_language(), "yy");
    }
}

TEST(Translator, FilesAsTheyWereDownloadedAreNamed) {
    const SmallModel small("tiny");
    for (const char* name : {"model.xxyy.intgemm.alphas.bin", "lex.50.50.xxyy.s2t.bin", "vocab.xxyy.spm"}) {
        const ModelCopy copy(small);
        std::filesystem::rename(copy.path(name), copy.path(name) + ".gz");
        const std::string found = message_of<FileError>([&] { Translator::from_pretrained(copy.folder()); });
        EXPECT_NE(found.find("found '" + copy.path(name) + ".gz': unpack it first (gunzip)"), std::string::npos)
            << found;
    }
}

TEST(Translator, FoldersThatCannotBeReadAreNamed) {
    const ModelCopy copy(SmallModel("tiny"));
    const auto message = [](const std::string& folder) {
        return message_of<FileError>([&] { Translator::from_pretrained(folder); });
    };
    const std::string loop = copy.path("loop");
    std::filesystem::create_symlink(loop, loop);
    for (const std::string& folder : {loop, std::string(5000, 'x')}) {
        EXPECT_EQ(
            message(folder).find("[Translator] expected a readable folder with a model at '" + folder + "', found: "),
            0U)
            << message(folder);
    }
    std::filesystem::remove(loop);
    ASSERT_EQ(mkfifo(copy.path("config.yml").c_str(), 0600), 0);
    EXPECT_EQ(message(copy.folder()), "[Translator] expected files in '" + copy.folder() +
                                          "', found a pipe or a device at '" + copy.path("config.yml") + "'");
}

TEST(Translator, YamlOfDefaults) {
    const ModelCopy copy(SmallModel("tiny"));
    const auto opened = [&](const std::string& yaml) {
        write_file(copy.path("config.yml"), yaml);
        return Translator::from_pretrained(copy.folder()).source_language();
    };
    for (const char* fine : {"", "# nothing\n", "---\n", "beam-size: 2.0", "max-length-factor: 0.5"}) {
        EXPECT_EQ(opened(fine), "xx") << fine;
    }
    for (const char* wrong :
         {"beam-size: 1.7", "beam-size: 0", "max-length-factor: 0", "max-length-factor: -1", "- 1"}) {
        EXPECT_THROW(opened(wrong), FileError) << wrong;
    }
}

// A piece of a translation, not of its source, is made to end with a line break where the vocabulary spells it.
TEST(Translator, LineBreaksInPiecesAreSpaces) {
    const SmallModel small("tiny");
    const Translator original = Translator::from_pretrained(small.folder);
    const std::string spelt = read_file(small.folder + "/vocab.xxyy.spm");
    int tried = 0;
    for (std::size_t i = 0; i < small.sentences(); ++i) {
        const std::vector<std::int64_t> source = original.encode(small.text(i));
        const Translation want = original.translate(small.text(i));
        for (const std::int64_t id : want.ids) {
            const std::string piece = original.pieces({id}).front();
            const std::string entry = std::string{'\n', static_cast<char>(piece.size())} + piece + '\x15';
            const std::size_t at = spelt.find(entry);
            const bool letter = piece.back() >= 'a' && piece.back() <= 'z';
            if (!letter || at == std::string::npos || std::find(source.begin(), source.end(), id) != source.end())
                continue;
            for (const char end : {'\n', '\r'}) {
                const ModelCopy copy(small);
                std::string bytes = spelt;
                bytes[at + 1 + piece.size()] = end;
                write_file(copy.path("vocab.xxyy.spm"), bytes);
                const Translation found = Translator::from_pretrained(copy.folder()).translate(small.text(i));
                if (found.ids != want.ids) continue;
                EXPECT_EQ(found.text.find_first_of("\r\n"), std::string::npos);
                EXPECT_EQ(found.text.size(), want.text.size());
                EXPECT_NE(found.text, want.text);
                ++tried;
            }
            break;
        }
    }
    EXPECT_GT(tried, 0);
}

}  // namespace
}  // namespace attend::testing
