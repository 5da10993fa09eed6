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
            EXPECT_NE(message.find("expected a tensor '" + tensor + "' in 'm.bin'"), std::string::npos) << message;
        }
    }
    // Nor does the configuration say that there is one embedding: the file has two vocabularies.
    EXPECT_NE(refusal(SmallModel("tiny"),
                      [](MarianItems& items) {
                          items.erase("Wemb");
                          replace_configuration(items, "tied-embeddings-all: true", "ulr: false");
                          replace_configuration(items, "tied-embeddings: false", "ulr: false");
                      })
                  .find("expected a tensor 'encoder_Wemb' in 'm.bin'"),
              std::string::npos);
}

// The output layer is an embedding: one of its own would be another network, with other results.
TEST(Marian, OutputLayersOfTheirOwnAreNamed) {
    const SmallModel split("split");
    const auto untie = [](MarianItems& items) {
        replace_configuration(items, "tied-embeddings: true", "tied-embeddings: false");
    };
    const auto add_output = [](MarianItems& items) {
        MarianItem output = items.at("decoder_Wemb");
        std::swap(output.shape[0], output.shape[1]);
        items["decoder_ff_logit_out_W"] = output;
    };
    const std::string own =
        "[load_marian] expected 'tied-embeddings' or 'tied-embeddings-all' to be 'true' in the configuration of "
        "'m.bin', since no output layer of its own is built, found 'false'";
    EXPECT_EQ(refusal(split, untie), own);
    EXPECT_EQ(refusal(split,
                      [&](MarianItems& items) {
                          untie(items);
                          add_output(items);
                      }),
              own);
    EXPECT_EQ(refusal(split, add_output),
              "[load_marian] expected tensors of the network in the configuration of 'm.bin' alone, found "
              "'decoder_ff_logit_out_W'");
}

TEST(Marian, EmbeddingsThatTheConfigurationDoesNotHaveAreNamed) {
    const SmallModel tiny("tiny");
    const auto with = [](const char* from, const char* to) {
        return [from, to](MarianItems& items) { replace_configuration(items, from, to); };
    };
    const char* kAll = "tied-embeddings-all: true";
    EXPECT_EQ(refusal(tiny, with(kAll, "tied-embeddings-all: false")),
              "[load_marian] expected 'tied-embeddings-all' or 'tied-embeddings-src' to be 'true' in the configuration "
              "of 'm.bin', which has a tensor 'Wemb', found 'false'");
    EXPECT_EQ(refusal(tiny, with(kAll, "tied-embeddings-src: true")),
              "[load_marian] expected 'tied-embeddings' or 'tied-embeddings-all' to be 'true' in the configuration of "
              "'m.bin', since no output layer of its own is built, found 'false'");
    EXPECT_EQ(refusal(tiny, with(kAll, "tied-embeddings-all: maybe")),
              "[load_marian] expected 'tied-embeddings-all' to be 'true' or 'false' in the configuration of 'm.bin', "
              "found 'maybe'");
    EXPECT_EQ(refusal(SmallModel("split"), with("tied-embeddings-all: false", "tied-embeddings-src: true")),
              "[load_marian] expected a tensor 'Wemb' in 'm.bin', as 'tied-embeddings-src' of its configuration is "
              "'true', found none");
    // One embedding of both languages, which the output layer is as well: what tied-embeddings-all says in one word.
    MarianItems items = read_items(read_file(tiny.model));
    replace_configuration(items, kAll, "tied-embeddings-src: true");
    replace_configuration(items, "tied-embeddings: false", "tied-embeddings: true");
    EXPECT_NO_THROW(models::load_marian(
        std::make_shared<const MarianFile>(MarianFile::from_bytes(written_items(items), "m.bin")), ComputeType::int8));
}

// Tensors that the network does not read belong to another one; scales of inputs that it need not read do not.
TEST(Marian, TensorsThatNobodyReadsAreNamed) {
    for (const std::string name : {"encoder_l1_self_Wo_ln_bias_pre", "decoder_l2_self_Wq", "Wpos", "Wtype"}) {
        EXPECT_EQ(
            refusal(SmallModel("tiny"), [&](MarianItems& items) { items[name] = items.at("encoder_l1_self_bq"); }),
            "[load_marian] expected tensors of the network in the configuration of 'm.bin' alone, found '" + name +
                "'");
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

// transformer-guided-alignment-layer counts from 1; the last unless given.
TEST(Translator, AlignmentsComeFromTheLayerThatLearnedThem) {
    const SmallModel small("tiny");
    const auto links_of = [&](const std::string& layer) {
        const ModelCopy copy(small);
        MarianItems items = copy.items;
        if (!layer.empty()) replace_configuration(items, "ulr: false", "transformer-guided-alignment-layer: " + layer);
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
            refusal(small, [&, from = from, to = to](MarianItems& items) { replace_configuration(items, from, to); });
        EXPECT_NE(message.find("m.bin"), std::string::npos) << to << ": " << message;
        EXPECT_EQ(message.find("another exception"), std::string::npos) << to << ": " << message;
    }
    EXPECT_EQ(
        refusal(small, [](MarianItems& items) { replace_configuration(items, "dec-cell: ssru", "dec-cell: gru"); }),
        "[load_marian] expected 'dec-cell' to be 'ssru' in the configuration of 'm.bin', found 'gru'");
}

TEST(Translator, LayersThatTheConfigurationLeavesOutAreNamed) {
    EXPECT_EQ(refusal(SmallModel("tiny"),
                      [](MarianItems& items) { replace_configuration(items, "dec-depth: 2", "dec-depth: 1"); })
                  .find("[load_marian] expected tensors 'decoder_lN' of the 1 layers in the configuration of 'm.bin', "
                        "found 'decoder_l2_"),
              0U);
}

}  // namespace
}  // namespace attend::testing
