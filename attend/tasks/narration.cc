#include <attend/core/print.h>
#include <attend/tasks/explain.h>

#include <array>

namespace attend::tasks {

namespace {

/// One step told in both languages. {n}, {d} and {h} stand for the sizes.
struct Step {
    const char* equation;
    std::array<const char*, 2> title;
    std::array<const char*, 2> meaning;
};

constexpr Step kWords{
    "ids_i = dictionary[word_i]    ids: [{n}]",
    {"Words to indices", "从词到索引"},
    {"A network computes with numbers, so each word is replaced by its index in the dictionary. The same word always "
     "has the same index.",
     "网络只能对数字做计算，所以先把每个词换成它在词典里的索引。同一个词的索引总是相同的。"}};
constexpr Step kEmbedding{"x_i = E[ids_i]    X: [{n}, {d}]",
                          {"Indices to vectors: the embedding", "从索引到向量：词嵌入"},
                          {"Each index selects one row of the embedding table. Here its rows are random; training "
                           "would move words of similar "
                           "use close together.",
                           "每个索引取出嵌入表中的一行。这里的行是随机数；经过训练，用法相近的词，向量也会彼此靠近。"}};
constexpr Step kProjections{"W_q, W_k, W_v: [{d}, {h}]",
                            {"Three projections", "三个投影矩阵"},
                            {"The same vectors are seen in three roles, each through a matrix of its own: what a word "
                             "asks for (query), what it "
                             "offers (key), and what it passes on (value).",
                             "同一个词向量要扮演三种角色，每种角色有自己的投影矩阵：它要找什么（查询），它能提供什么（"
                             "键），它真正传递什么（值）。"}};
constexpr Step kQuery{"Q = X W_q    [{n}, {d}] x [{d}, {h}] = [{n}, {h}]",
                      {"Queries", "查询"},
                      {"Row i is what word i looks for in the others.", "第 i 行表示第 i 个词想在其他词中寻找什么。"}};
constexpr Step kKey{"K = X W_k    [{n}, {d}] x [{d}, {h}] = [{n}, {h}]",
                    {"Keys", "键"},
                    {"Row j is what word j can be found by.", "第 j 行表示第 j 个词凭什么被别的词找到。"}};
constexpr Step kValue{
    "V = X W_v    [{n}, {d}] x [{d}, {h}] = [{n}, {h}]",
    {"Values", "值"},
    {"Row j is what word j contributes where it is attended to.", "第 j 行表示第 j 个词被关注时贡献的内容。"}};
constexpr Step kScores{
    "S = Q K^T    [{n}, {h}] x [{h}, {n}] = [{n}, {n}]",
    {"Scores", "打分"},
    {"s_ij is the dot product of query i and key j: the better the two agree, the larger it is. Every word is compared "
     "with every word, so the table has n x n entries.",
     "s_ij 是第 i 个查询与第 j 个键的点积：两者越一致，得分越高。每个词都要和每个词比较，所以表里有 n x n 个数。"}};
constexpr Step kScaled{"S / sqrt(h)    h = {h}    [{n}, {n}]",
                       {"Scaled scores", "缩放"},
                       {"A dot product of h terms grows like sqrt(h). Dividing by sqrt(h) keeps the scores in a range "
                        "where the softmax does "
                        "not put everything on one word.",
                        "h 项相加的点积，其大小随 sqrt(h) 增长。除以 sqrt(h)，让得分留在合适的范围内，softmax "
                        "才不会把全部权重压到一个词上。"}};
constexpr Step kWeights{
    "a_ij = exp(s_ij) / sum_j' exp(s_ij')    [{n}, {n}]",
    {"Attention weights: the softmax of each row", "注意力权重：对每一行做 softmax"},
    {"Each row becomes positive numbers that sum to 1: how word i divides its attention among the words j.",
     "每一行变成一组和为 1 的正数：第 i 个词把它的注意力怎样分配给各个词 j。"}};
constexpr Step kOutput{"O = A V    [{n}, {n}] x [{n}, {h}] = [{n}, {h}]",
                       {"Attention output", "注意力输出"},
                       {"Row i is the average of the values, weighted by row i of the attention: word i, informed by "
                        "the words it attends to.",
                        "第 i 行是各个值按第 i 行注意力权重求得的加权平均：第 i 个词，融入了它所关注的词的信息。"}};

}  // namespace

std::string narrated_text(const Explanation& e, Language language) {
    const PrintOptions pytorch{.dtype_prefix = "torch."};
    const auto which = static_cast<std::size_t>(language);
    const auto filled = [&](std::string text) {
        for (const auto& [name, size] : {std::pair<const char*, std::int64_t>{"{n}", e.embedded.size(0)},
                                         {"{d}", e.embedded.size(1)},
                                         {"{h}", e.query.size(1)}}) {
            for (std::size_t at = text.find(name); at != std::string::npos; at = text.find(name)) {
                text.replace(at, 3, std::to_string(size));
            }
        }
        return text;
    };
    std::string text;
    int number = 0;
    const auto tell = [&](const Step& step) {
        if (number > 0) text += "\n";
        text += std::to_string(++number) + ". " + step.title[which] + "\n   " + filled(step.equation) + "\n   " +
                step.meaning[which] + "\n\n";
    };
    const auto show = [&](const std::string& name, const Tensor& tensor) {
        text += name + " =\n " + to_string(tensor, pytorch) + "\n";
    };
    tell(kWords);
    for (std::size_t i = 0; i < e.words.size(); ++i) {
        text += "   " + std::to_string(e.ids.data<std::int64_t>()[i]) + "\t" + e.words[i] + "\n";
    }
    show("ids", e.ids);
    tell(kEmbedding);
    show("X", e.embedded);
    tell(kProjections);
    show("W_q", e.query_weight);
    show("W_k", e.key_weight);
    show("W_v", e.value_weight);
    tell(kQuery);
    show("Q", e.query);
    tell(kKey);
    show("K", e.key);
    tell(kValue);
    show("V", e.value);
    tell(kScores);
    show("S", e.scores);
    tell(kScaled);
    show("S / sqrt(h)", e.scaled_scores);
    tell(kWeights);
    show("A", e.weights);
    tell(kOutput);
    show("O", e.output);
    return text;
}

}  // namespace attend::tasks
