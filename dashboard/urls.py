"""Where the dashboard's pages are."""

from django.urls import path

from dashboard.views.entrance import AdminLoginView, LeaveView
from dashboard.views.overview import overview
from dashboard.views.playground import playground

urlpatterns = [
    path("", overview, name="overview"),
    path("logout/", LeaveView.as_view(), name="logout"),
    path("playground/", playground, name="playground"),
    # The admin's own doors lead through ours, so that there is one log-in and it is throttled.
    path("admin/login/", AdminLoginView.as_view()),
    path("admin/logout/", LeaveView.as_view()),
]
