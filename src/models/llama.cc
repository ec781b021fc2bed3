// The Llama family: Llama, Mistral (sliding window), Qwen2 (biases of Q, K and V).
//
// Source: Touvron et al., "LLaMA" (arXiv 2302.13971): pre-norm RMSNorm, rotary positions, SwiGLU,
// grouped queries. The residual stream is f32 whatever the weights' dtype.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/check.h"
#include "base/tracer.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "layers/linear.h"
#include "layers/rotary.h"
#include "models/architectures.h"
#include "models/llama_config.h"
#include "tensor/aligned_buffer.h"
#include "tensor/dequantize.h"
#include "tensor/float_convert.h"

namespace pagemill {
namespace {

struct LlamaLayer {
  std::vector<float> attention_norm;  // [hidden_size]
  LinearGroup qkv;
  LinearGroup output;
  std::vector<float> mlp_norm;  // [hidden_size]
  LinearGroup gate_up;
  LinearGroup down;
  std::int32_t kv_group = 0;
};

class LlamaModel final : public Model {
 public:
  LlamaModel(LlamaConfig config,
             RotaryEmbedding rope,
             const ModelOptions& options,
             ThreadPool& pool)
      : config_(std::move(config)),
        rope_(std::move(rope)),
        options_(options),
        pool_(pool),
        elementwise_(elementwise_kernels(options.isa)),
        q_size_(std::int64_t{config_.num_heads} * config_.head_size),
        kv_size_(std::int64_t{config_.num_kv_heads} * config_.head_size) {}

  Status load(const LoadContext& context);
  const ModelSpec& spec() const override { return spec_; }
  void forward(const ForwardBatch& batch, KvStorage& kv, float* hidden) override;
  void logits(const float* hidden, std::int64_t num_rows, float* logits) override;

 private:
  Result<LlamaLayer> load_layer(const LoadContext& context, std::int32_t index) const;
  Status load_vocabulary(const LoadContext& context);
  void assign_kv_groups();
  void allocate_scratch();
  void fill_spec(const LoadContext& context);

  void embed(const ForwardBatch& batch);
  void write_keys_values(const LlamaLayer& layer,
                         std::int32_t index,
                         const ForwardBatch& batch,
                         KvStorage& kv);
  void attention(const LlamaLayer& layer,
                 std::int32_t index,
                 std::span<const AttentionSequence> sequences,
                 KvStorage& kv);
  void attention_output(const LlamaLayer& layer, std::span<const std::int32_t> rows);
  void mlp(const LlamaLayer& layer, std::int64_t num_tokens);
  void silu(const LlamaLayer& layer, std::int64_t num_tokens);
  void product(const char* op,
               const LinearGroup& group,
               std::int64_t num_rows,
               std::span<const LinearGroup::Output> outputs,
               bool accumulate = false);
  void norm_and_prepare(const std::vector<float>& weight,
                        const LinearGroup& next,
                        const float* x,
                        std::int64_t num_rows);

  LlamaConfig config_;
  RotaryEmbedding rope_;
  ModelOptions options_;
  ThreadPool& pool_;
  const ElementwiseKernels& elementwise_;
  std::int64_t q_size_, kv_size_;  // elements of one token's queries, and of its keys
  ModelSpec spec_;

  const CheckpointTensor* embedding_ = nullptr;  // null where tied: the packed lm_head serves
  std::vector<LlamaLayer> layers_;
  std::vector<float> final_norm_;
  LinearGroup lm_head_;

  // Scratch for max_tokens rows, allocated once.
  AlignedBuffer residual_;   // [max_tokens, hidden_size]
  AlignedBuffer qkv_;        // [max_tokens, q_size + 2 kv_size]
  AlignedBuffer attention_;  // [max_tokens, q_size]
  AlignedBuffer gate_up_;    // [max_tokens, 2 intermediate_size]
  AlignedBuffer normed_;     // [max(max_tokens, max_logits_rows), hidden_size]
  AlignedBuffer cos_sin_;    // [max_tokens, rotary_dim]: cosines, then sines
  std::optional<Activations> activations_;
  std::vector<std::int32_t> all_rows_;             // 0, 1, .. max_tokens - 1
  std::vector<AttentionSequence> last_sequences_;  // of the rows that need logits
};

float* floats(AlignedBuffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

Status LlamaModel::load(const LoadContext& context) {
  for (std::int32_t i = 0; i < config_.num_layers; ++i) {
    PM_ASSIGN(LlamaLayer layer, load_layer(context, i));
    layers_.push_back(std::move(layer));
  }
  PM_TRY(load_vocabulary(context));
  assign_kv_groups();
  allocate_scratch();
  fill_spec(context);
  return ok_status();
}

Result<LlamaLayer> LlamaModel::load_layer(const LoadContext& context, std::int32_t index) const {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const bool interleaved = context.checkpoint.rotary_interleaved();
  const RowOrder q_order{.rotary_heads = interleaved ? config_.num_heads : 0};
  const RowOrder k_order{.rotary_heads = interleaved ? config_.num_kv_heads : 0};
  const std::string attn = prefix + "self_attn.";
  const LinearSpec qkv[] = {{attn + "q_proj", q_size_, config_.qkv_bias, q_order},
                            {attn + "k_proj", kv_size_, config_.qkv_bias, k_order},
                            {attn + "v_proj", kv_size_, config_.qkv_bias, {}}};
  const LinearSpec output[] = {{attn + "o_proj", config_.hidden_size, config_.output_bias, {}}};
  const std::string mlp = prefix + "mlp.";
  const LinearSpec gate_up[] = {
      {mlp + "gate_proj", config_.intermediate_size, config_.mlp_bias, {}},
      {mlp + "up_proj", config_.intermediate_size, config_.mlp_bias, {}}};
  const LinearSpec down[] = {{mlp + "down_proj", config_.hidden_size, config_.mlp_bias, {}}};

  LlamaLayer layer;
  PM_ASSIGN(layer.attention_norm,
            load_vector(context, prefix + "input_layernorm.weight", config_.hidden_size));
  PM_ASSIGN(layer.qkv, LinearGroup::load(context, qkv, config_.hidden_size));
  PM_ASSIGN(layer.output, LinearGroup::load(context, output, q_size_));
  PM_ASSIGN(layer.mlp_norm,
            load_vector(context, prefix + "post_attention_layernorm.weight", config_.hidden_size));
  PM_ASSIGN(layer.gate_up, LinearGroup::load(context, gate_up, config_.hidden_size));
  PM_ASSIGN(layer.down, LinearGroup::load(context, down, config_.intermediate_size));
  return layer;
}

Status LlamaModel::load_vocabulary(const LoadContext& context) {
  const bool tied =
      config_.tie_word_embeddings || context.checkpoint.find("lm_head.weight") == nullptr;
  const LinearSpec head[] = {
      {tied ? "model.embed_tokens" : "lm_head", config_.vocab_size, false, {}}};
  PM_ASSIGN(lm_head_, LinearGroup::load(context, head, config_.hidden_size));
  if (!tied) {
    const std::int64_t shape[] = {config_.vocab_size, config_.hidden_size};
    PM_ASSIGN(embedding_, require_tensor(context.checkpoint, "model.embed_tokens.weight", shape));
  }
  PM_ASSIGN(final_norm_, load_vector(context, "model.norm.weight", config_.hidden_size));
  return ok_status();
}

// Layers with the same window share a block table.
void LlamaModel::assign_kv_groups() {
  std::map<std::int32_t, std::int32_t> group_of_window;
  for (std::int32_t i = 0; i < config_.num_layers; ++i) {
    const std::int32_t window = config_.window[i];
    const auto [it, is_new] =
        group_of_window.try_emplace(window, static_cast<std::int32_t>(spec_.kv_specs.size()));
    if (is_new) {
      spec_.kv_specs.push_back({.kind = window > 0 ? KvKind::kWindowed : KvKind::kFull,
                                .layers = {},
                                .num_kv_heads = config_.num_kv_heads,
                                .head_size = config_.head_size,
                                .window = window,
                                .bytes_per_token = 0});
    }
    KvSpec& kv = spec_.kv_specs[it->second];
    kv.layers.push_back(i);
    kv.bytes_per_token += 2 * kv_size_ * dtype_info(DType::kBF16).block_bytes;
    layers_[i].kv_group = it->second;
  }
}

void LlamaModel::allocate_scratch() {
  const std::int64_t rows = options_.max_tokens;
  const std::int64_t widest = std::max(
      {std::int64_t{config_.hidden_size}, q_size_, std::int64_t{config_.intermediate_size}});
  const auto allocate = [](std::int64_t elements) {
    return AlignedBuffer(static_cast<std::size_t>(elements) * sizeof(float));
  };
  residual_ = allocate(rows * config_.hidden_size);
  qkv_ = allocate(rows * (q_size_ + 2 * kv_size_));
  attention_ = allocate(rows * q_size_);
  gate_up_ = allocate(rows * 2 * config_.intermediate_size);
  const std::int64_t normed_rows = std::max(rows, std::int64_t{options_.max_logits_rows});
  normed_ = allocate(normed_rows * config_.hidden_size);
  cos_sin_ = allocate(rows * rope_.rotary_dim());
  activations_.emplace(options_.isa, normed_rows, widest);
  const auto reserve = [&](const LinearGroup& group) {
    for (ActivationFormat format : group.formats()) activations_->reserve(format);
  };
  for (const LlamaLayer& layer : layers_) {
    for (const LinearGroup* group : {&layer.qkv, &layer.output, &layer.gate_up, &layer.down}) {
      reserve(*group);
    }
  }
  reserve(lm_head_);
  all_rows_.resize(rows);
  std::iota(all_rows_.begin(), all_rows_.end(), 0);
  last_sequences_.reserve(rows);
}

void LlamaModel::fill_spec(const LoadContext& context) {
  spec_.architecture = config_.architecture;
  spec_.num_layers = config_.num_layers;
  spec_.hidden_size = config_.hidden_size;
  spec_.vocab_size = config_.vocab_size;
  spec_.max_model_len = rope_.max_positions();
  spec_.prefix_cacheable = !rope_.depends_on_length();
  spec_.dtype = dtype_info(layers_.front().gate_up.weight(0).dtype()).name;
  for (const CheckpointTensor& tensor : context.checkpoint.tensors()) {
    spec_.num_parameters += tensor.view.elements();
  }
  spec_.weight_bytes = lm_head_.bytes();
  for (const LlamaLayer& layer : layers_) {
    spec_.weight_bytes +=
        layer.qkv.bytes() + layer.output.bytes() + layer.gate_up.bytes() + layer.down.bytes();
  }
}

void LlamaModel::norm_and_prepare(const std::vector<float>& weight,
                                  const LinearGroup& next,
                                  const float* x,
                                  std::int64_t num_rows) {
  const TraceScope scope("norm");
  const std::int64_t hidden = config_.hidden_size;
  for_each_row(pool_, num_rows, [&](std::int64_t row) {
    float* normed = floats(normed_) + row * hidden;
    elementwise_.rms_norm(x + row * hidden, weight.data(), config_.rms_norm_eps, hidden, normed);
    activations_->prepare(next.formats(), normed, hidden, row);
  });
}

void LlamaModel::product(const char* op,
                         const LinearGroup& group,
                         std::int64_t num_rows,
                         std::span<const LinearGroup::Output> outputs,
                         bool accumulate) {
  const TraceScope scope(op);
  group.run(pool_, *activations_, num_rows, outputs, accumulate);
}

void LlamaModel::embed(const ForwardBatch& batch) {
  const TraceScope scope("embed");
  const std::int64_t hidden = config_.hidden_size;
  const std::int64_t half = rope_.rotary_dim() / 2;
  for_each_row(pool_, static_cast<std::int64_t>(batch.token_ids.size()), [&](std::int64_t row) {
    float* x = floats(residual_) + row * hidden;
    const TokenId token = batch.token_ids[row];
    if (embedding_ == nullptr) {
      unpack_row(lm_head_.weight(0), token, x);
    } else {
      const TensorView& view = embedding_->view;
      dequantize_row(view.dtype, view.data + dtype_bytes(view.dtype, token * hidden), hidden, x);
      if (options_.compute == DType::kBF16) {
        for (std::int64_t i = 0; i < hidden; ++i) x[i] = bf16_to_float(float_to_bf16(x[i]));
      }
    }
    float* cos = floats(cos_sin_) + row * 2 * half;
    rope_.cos_sin(batch.positions[row], batch.prompt_lens[row], cos, cos + half);
  });
}

// Of every row: queries into qkv_, keys and values into the cache.
void LlamaModel::write_keys_values(const LlamaLayer& layer,
                                   std::int32_t index,
                                   const ForwardBatch& batch,
                                   KvStorage& kv) {
  const auto num_tokens = static_cast<std::int64_t>(batch.token_ids.size());
  const std::int64_t stride = q_size_ + 2 * kv_size_;
  float* q = floats(qkv_);
  float* k = q + q_size_;
  float* v = k + kv_size_;
  norm_and_prepare(layer.attention_norm, layer.qkv, floats(residual_), num_tokens);
  const LinearGroup::Output qkv[] = {{q, stride}, {k, stride}, {v, stride}};
  product("qkv", layer.qkv, num_tokens, qkv);

  const TraceScope scope("rope_kv_write");
  const std::int64_t rotary_dim = rope_.rotary_dim();
  for_each_row(pool_, num_tokens, [&](std::int64_t row) {
    const float* cos = floats(cos_sin_) + row * rotary_dim;
    const float* sin = cos + rotary_dim / 2;
    // Q and K lie side by side: one call rotates the heads of both.
    elementwise_.rope_neox(q + row * stride,
                           config_.num_heads + config_.num_kv_heads,
                           config_.head_size,
                           rotary_dim,
                           cos,
                           sin);
  });
  write_kv(options_.isa,
           pool_,
           kv.layout(layer.kv_group),
           kv.keys(index),
           kv.values(index),
           k,
           stride,
           v,
           stride,
           batch.groups[layer.kv_group].slot_mapping);
}

void LlamaModel::attention(const LlamaLayer& layer,
                           std::int32_t index,
                           std::span<const AttentionSequence> sequences,
                           KvStorage& kv) {
  const TraceScope scope("attention");
  const AttentionParams params{.num_heads = config_.num_heads,
                               .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_size)),
                               .window = config_.window[index],
                               .logit_softcap = 0,
                               .alibi_slopes = nullptr};
  paged_attention(options_.isa,
                  pool_,
                  kv.layout(layer.kv_group),
                  kv.keys(index),
                  kv.values(index),
                  params,
                  floats(qkv_),
                  q_size_ + 2 * kv_size_,
                  sequences,
                  floats(attention_),
                  q_size_);
}

// Adds what `rows` attended to to the residual stream, whose row i becomes that of rows[i].
void LlamaModel::attention_output(const LlamaLayer& layer, std::span<const std::int32_t> rows) {
  const TraceScope scope("out");
  const auto num_rows = static_cast<std::int64_t>(rows.size());
  for_each_row(pool_, num_rows, [&](std::int64_t i) {
    const float* row = floats(attention_) + rows[i] * q_size_;
    activations_->prepare(layer.output.formats(), row, q_size_, i);
  });
  for (std::int64_t i = 0; i < num_rows; ++i) {  // ascending: no row is overwritten before its turn
    if (rows[i] == i) continue;
    std::copy_n(floats(residual_) + rows[i] * std::int64_t{config_.hidden_size},
                config_.hidden_size,
                floats(residual_) + i * config_.hidden_size);
  }
  const LinearGroup::Output residual[] = {{floats(residual_), config_.hidden_size}};
  layer.output.run(pool_, *activations_, num_rows, residual, /*accumulate=*/true);
}

void LlamaModel::mlp(const LlamaLayer& layer, std::int64_t num_tokens) {
  const std::int64_t width = config_.intermediate_size;
  norm_and_prepare(layer.mlp_norm, layer.gate_up, floats(residual_), num_tokens);
  float* gate = floats(gate_up_);
  const LinearGroup::Output gate_up[] = {{gate, 2 * width}, {gate + width, 2 * width}};
  product("gate_up", layer.gate_up, num_tokens, gate_up);
  silu(layer, num_tokens);
  const LinearGroup::Output residual[] = {{floats(residual_), config_.hidden_size}};
  product("down", layer.down, num_tokens, residual, /*accumulate=*/true);
}

void LlamaModel::silu(const LlamaLayer& layer, std::int64_t num_tokens) {
  const TraceScope scope("silu");
  const std::int64_t width = config_.intermediate_size;
  for_each_row(pool_, num_tokens, [&](std::int64_t row) {
    float* gate = floats(gate_up_) + row * 2 * width;
    elementwise_.silu_mul(gate, gate + width, width, gate);
    activations_->prepare(layer.down.formats(), gate, width, row);
  });
}

void LlamaModel::forward(const ForwardBatch& batch, KvStorage& kv, float* hidden) {
  const auto num_tokens = static_cast<std::int64_t>(batch.token_ids.size());
  PM_CHECK(
      num_tokens <= options_.max_tokens, "{} tokens, room for {}", num_tokens, options_.max_tokens);
  embed(batch);
  for (std::int32_t i = 0; i < config_.num_layers; ++i) {
    const LlamaLayer& layer = layers_[i];
    const std::span<const AttentionSequence> sequences = batch.groups[layer.kv_group].sequences;
    write_keys_values(layer, i, batch, kv);
    if (i + 1 < config_.num_layers) {
      attention(layer, i, sequences, kv);
      attention_output(layer, std::span(all_rows_).first(num_tokens));
      mlp(layer, num_tokens);
      continue;
    }
    // Nothing reads what the last layer makes of the other rows but their keys and values.
    select_queries(sequences, batch.logits_rows, last_sequences_);
    attention(layer, i, last_sequences_, kv);
    attention_output(layer, batch.logits_rows);
    mlp(layer, static_cast<std::int64_t>(batch.logits_rows.size()));
  }
  const auto num_values = static_cast<std::int64_t>(batch.logits_rows.size()) * config_.hidden_size;
  std::copy_n(floats(residual_), num_values, hidden);
}

void LlamaModel::logits(const float* hidden, std::int64_t num_rows, float* logits) {
  PM_CHECK(num_rows <= options_.max_logits_rows,
           "{} rows, room for {}",
           num_rows,
           options_.max_logits_rows);
  norm_and_prepare(final_norm_, lm_head_, hidden, num_rows);
  const LinearGroup::Output output[] = {{logits, config_.vocab_size}};
  product("logits", lm_head_, num_rows, output);
}

Result<std::vector<float>> read_freq_factors(const Checkpoint& checkpoint) {
  std::vector<float> factors;
  const CheckpointTensor* tensor = checkpoint.find("rope_freqs.weight");
  if (tensor == nullptr) return factors;
  factors.resize(tensor->view.elements());
  dequantize_row(tensor->view.dtype, tensor->view.data, tensor->view.elements(), factors.data());
  return factors;
}

}  // namespace

Result<std::unique_ptr<Model>> make_llama(const Checkpoint& checkpoint,
                                          const ModelOptions& options,
                                          ThreadPool& pool,
                                          Communicator& comm) {
  if (comm.world_size() != 1) return unsupported("tensor parallelism is not supported yet");
  PM_ASSIGN(LlamaConfig config, LlamaConfig::parse(checkpoint));
  PM_ASSIGN(const std::vector<float> freq_factors, read_freq_factors(checkpoint));
  PM_ASSIGN(RotaryEmbedding rope,
            RotaryEmbedding::create(checkpoint.config(), config.rotary_dim, freq_factors));
  auto model = std::make_unique<LlamaModel>(std::move(config), std::move(rope), options, pool);
  PM_TRY(model->load({checkpoint, options.isa, options.compute, pool}));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace pagemill
