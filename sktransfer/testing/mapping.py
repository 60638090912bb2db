"""What became of each of scikit-learn's checks.

The keys of `MAPPING` and `LEFT_OUT` together are all checks of ``sklearn.utils.estimator_checks``, those that
`check_estimator` runs and those that scikit-learn runs on its own estimators only; a test compares them with the
installed scikit-learn.
"""

# scikit-learn's check: the checks here that stand for it. The same name means that it is run as it is.
MAPPING: dict[str, tuple[str, ...]] = {
    # Parameters and tags.
    "check_estimator_cloneable": ("check_estimator_cloneable",),
    "check_estimator_tags_renamed": ("check_estimator_tags_renamed",),
    "check_valid_tag_types": ("check_valid_tag_types",),
    "check_estimator_repr": ("check_estimator_repr", "check_html_repr"),
    "check_no_attributes_set_in_init": ("check_no_attributes_set_in_init",),
    "check_do_not_raise_errors_in_init_or_set_params": ("check_do_not_raise_errors_in_init_or_set_params",),
    "check_mixin_order": ("check_mixin_order",),
    "check_parameters_default_constructible": ("check_parameters_default_constructible",),
    "check_get_params_invariance": ("check_get_params_invariance",),
    "check_set_params": ("check_set_params", "check_set_params_takes_effect"),
    "check_param_validation": ("check_param_validation",),
    # Fitting and state.
    "check_estimators_fit_returns_self": ("check_fit_returns_self",),
    "check_estimators_overwrite_params": ("check_fit_keeps_parameters",),
    "check_dont_overwrite_parameters": ("check_fit_sets_no_public_attributes",),
    "check_dict_unchanged": ("check_methods_keep_state",),
    "check_fit_idempotent": ("check_fit_idempotent", "check_second_fit_forgets_first"),
    "check_fit_check_is_fitted": ("check_is_fitted_after_fit", "check_clone_of_fitted"),
    "check_estimators_unfitted": ("check_unfitted",),
    "check_transformers_unfitted": ("check_unfitted",),
    "check_transformers_unfitted_stateless": ("check_unfitted",),
    "check_estimators_pickle": ("check_pickle", "check_memory_mapped_pickle"),
    "check_non_transformer_estimators_n_iter": ("check_n_iter",),
    "check_transformer_n_iter": ("check_n_iter",),
    # What is handed in.
    "check_fit_score_takes_y": ("check_methods_take_y",),
    "check_readonly_memmap_input": ("check_readonly_input",),
    "check_inplace_ensure_writeable": ("check_readonly_input", "check_input_unchanged", "check_list_unchanged"),
    "check_estimators_dtypes": ("check_container",),
    "check_dtype_object": ("check_container", "check_wrong_rows"),
    "check_f_contiguous_array_estimator": ("check_container",),
    "check_transformer_data_not_an_array": ("check_container",),
    "check_classifier_data_not_an_array": ("check_container", "check_y_containers"),
    "check_regressor_data_not_an_array": ("check_container", "check_y_containers"),
    "check_complex_data": ("check_wrong_rows", "check_wrong_inputs"),
    "check_estimators_empty_data_messages": ("check_empty_input",),
    "check_estimators_nan_inf": ("check_missing_rows", "check_missing_in_frame", "check_wrong_inputs"),
    "check_estimator_sparse_tag": ("check_sparse_input",),
    "check_estimator_sparse_array": ("check_sparse_input",),
    "check_estimator_sparse_matrix": ("check_sparse_input",),
    "check_n_features_in": ("check_columns",),
    "check_n_features_in_after_fitting": ("check_columns", "check_several_columns"),
    "check_dataframe_column_names_consistency": ("check_columns",),
    "check_fit2d_1sample": ("check_one_row",),
    "check_fit2d_predict1d": ("check_bare_row",),
    "check_estimators_partial_fit_n_features": ("check_wrong_inputs", "check_several_columns"),
    "check_array_api_input": ("check_array_api_dispatch",),
    # What is given back.
    "check_methods_sample_order_invariance": ("check_row_order",),
    "check_methods_subset_invariance": ("check_row_subsets",),
    "check_pipeline_consistency": ("check_pipeline",),
    "check_transformer_general": ("check_transform_output", "check_fit_transform"),
    "check_transformer_preserve_dtypes": ("check_transform_output",),
    "check_get_feature_names_out_error": ("check_feature_names_out",),
    "check_transformer_get_feature_names_out": ("check_feature_names_out",),
    "check_transformer_get_feature_names_out_pandas": ("check_feature_names_out_of_frame",),
    "check_set_output_transform": ("check_set_output_default",),
    "check_set_output_transform_pandas": ("check_set_output",),
    "check_global_output_transform_pandas": ("check_set_output",),
    "check_set_output_transform_polars": ("check_set_output",),
    "check_global_set_output_transform_polars": ("check_set_output",),
    # Targets.
    "check_requires_y_none": ("check_y_required",),
    "check_supervised_y_2d": ("check_y_column",),
    "check_supervised_y_no_nan": ("check_y_missing",),
    "check_classifier_multioutput": ("check_several_targets",),
    "check_regressor_multioutput": ("check_several_targets",),
    "check_classifiers_train": (
        "check_classifier_learns",
        "check_y_length",
        "check_predict_proba",
        "check_decision_function",
    ),
    "check_classifiers_classes": ("check_classes", "check_decision_function"),
    "check_classifiers_one_label": ("check_one_class",),
    "check_classifiers_one_label_sample_weights": ("check_one_class_left_by_weights",),
    "check_classifiers_regression_target": ("check_continuous_target",),
    "check_classifier_not_supporting_multiclass": ("check_classes",),
    "check_class_weight_classifiers": ("check_class_weight",),
    "check_class_weight_balanced_linear_classifier": ("check_class_weight",),
    "check_decision_proba_consistency": ("check_decision_function",),
    "check_regressors_train": ("check_regressor_learns", "check_y_length"),
    "check_regressors_int": ("check_integer_target",),
    "check_regressors_no_decision_function": ("check_no_decision_function",),
    # Weights.
    "check_sample_weights_pandas_series": ("check_weight_containers",),
    "check_sample_weights_not_an_array": ("check_weight_containers",),
    "check_sample_weights_list": ("check_weight_containers",),
    "check_sample_weights_shape": ("check_weight_shape",),
    "check_sample_weights_not_overwritten": ("check_weights_unchanged",),
    "check_all_zero_sample_weights_error": ("check_weights_of_zero",),
    "check_sample_weight_equivalence_on_dense_data": ("check_weights_equal_copies", "check_weights_of_one"),
}

_ONE_COLUMN = "a text or an image is one column always; more are refused (check_several_columns)"
_NUMBERS_ONLY = "asks for something that only numbers have"
_OTHER_TYPE = "for a type of estimator that there is none of for texts and images"
_MULTILABEL = "no estimator here takes several labels for a row; with the first that does, these are due"
_ARRAY_API = "texts are no arrays, and images are decoded on the processor; arrays of other libraries are not read"

# scikit-learn's check: why there is none here.
LEFT_OUT: dict[str, str] = {
    "check_fit1d": "the opposite holds: a flat list of rows is the usual form of X",
    "check_fit2d_1feature": _ONE_COLUMN,
    "check_positive_only_tag_during_fit": _NUMBERS_ONLY,
    "check_fit_non_negative": _NUMBERS_ONLY,
    "check_nonsquare_error": "for estimators that read distances between rows",
    "check_sparsify_coefficients": "for linear models over columns of numbers",
    "check_sample_weight_equivalence_on_sparse_data": "sparse data is refused (check_sparse_input)",
    "check_array_api_input_and_values": _ARRAY_API,
    "check_array_api_mixed_inputs": _ARRAY_API,
    "check_array_api_same_namespace": _ARRAY_API,
    "check_classifiers_multilabel_representation_invariance": _MULTILABEL,
    "check_classifiers_multilabel_output_format_predict": _MULTILABEL,
    "check_classifiers_multilabel_output_format_predict_proba": _MULTILABEL,
    "check_classifiers_multilabel_output_format_decision_function": _MULTILABEL,
    "check_clustering": _OTHER_TYPE,
    "check_clusterer_compute_labels_predict": _OTHER_TYPE,
    "check_outliers_train": _OTHER_TYPE,
    "check_outliers_fit_predict": _OTHER_TYPE,
    "check_outlier_contamination": _OTHER_TYPE,
}
